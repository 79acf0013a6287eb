"""Derived data kept equal to the rows: the index follower, the loader, graph snapshots, and composites.

The index is a function of a committed prefix of the database.
May import `repository`, `index`, `database` and what those import.
"""
