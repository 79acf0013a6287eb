"""History: records as of an earlier time, lists of changes, and the undo of one change.

Reads take changes back from the present rows; an undo is recorded as a change of its own.
May import `repository`, `sync`, `filters` and what those import.
"""
