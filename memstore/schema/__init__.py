"""Owns the schema of a memstore file: tables, column types, triggers, and namespaces as paths.

A new file is created from this schema. The migrations give an older file the same `sqlite_master`, byte for byte.
May import `models` and `timestamps`.
"""
