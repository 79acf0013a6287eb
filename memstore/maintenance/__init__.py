"""Maintenance of a file: check, repair, verify, backup and restore.

`check` changes nothing; `repair` invents nothing.
May import `repository`, `sync`, `index` and what those import.
"""
