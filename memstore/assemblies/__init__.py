"""What assemblies become through one another: merges and their lineage, and clusters of memories as new assemblies.

Functions run inside the caller's transaction; a merge can be undone.
May import `repository`, `sync`, `search` and what those import.
"""
