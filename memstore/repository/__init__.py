"""Statements: records in, records out. Never commits, never sees the index.

Every function is a plain function of a SQLAlchemy `Connection` and runs inside somebody's transaction, on the
thread that owns the connection; its namespace is always an argument. What `memories` and `assemblies` have in
common stands once, in `rows`, over a `Noun`.
"""
