"""The schema of a memstore file: tables, column types, triggers, and namespaces as paths.

The migrations produce exactly this schema.
May import `errors` and `models`.
"""
