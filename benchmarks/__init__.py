"""What memstore costs beside the same work done by hand: bulk add, one search, and gaps in the event loop.

Run it with `python -m benchmarks`. It measures and prints; nothing here passes or fails.
"""
