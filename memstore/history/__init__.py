"""History: records as of an earlier moment, lists of changes, and undoing one change.

Reads use the change history in the file; an undo writes a new change.
May import `repository`, `sync`, `filters` and what those import.
"""
