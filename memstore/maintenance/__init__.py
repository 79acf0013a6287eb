"""Maintenance of a file: check, repair, verify, backup and restore, statistics, compaction.

`check`, `verify` and the statistics change nothing; `repair` only computes what the rows determine.
May import `session`, `repository`, `sync`, `index`, and what those import.
"""
