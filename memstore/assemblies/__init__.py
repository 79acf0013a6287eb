"""Assemblies from memories and from each other: merges and their lineage, merge candidates, and clusters.

Writes run inside the caller's transaction; a merge can be undone.
May import `repository`, `sync`, `session`, `search` and what those import.
"""
