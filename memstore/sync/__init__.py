"""Derived data kept equal to the rows: the indexes, their graph snapshots, and the composites.

An index is a function of a committed prefix of the change log; it is never ahead of the reader's snapshot.
May import `repository`, `index`, `database` and what those import.
"""
