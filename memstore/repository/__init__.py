"""Statements: records in, records out.

Every function takes a `Connection` or a `WriteContext` and runs inside a transaction that its caller opened, on the
connection's thread. It never commits and never reads the indexes in memory. Every statement is `Prepared`, but for DDL,
PRAGMAs and conditions that depend on a filter. May import `database`, `schema`, `filters`, `models`, `validation` and
what those import. `sqlite_only` contains what another database engine would replace as a whole.
"""
