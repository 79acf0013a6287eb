"""The same work on memstore, on the limits of what it is built of, and on its peers.

Run it with `python -m benchmarks`. It measures and prints; nothing here passes or fails.
"""
