"""Measures memstore against its storage limits and against other embedded stores.

Run `python -m benchmarks`. It records times and ratios and asserts nothing about speed.
"""
