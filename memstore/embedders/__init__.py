"""Embedders: functions that turn texts into vectors, called outside the event loop and before the writer lock.

Every returned vector is checked against the dimension of the store.
May import `errors`, `concurrency` and `vectors`.
"""
