"""What only SQLite can have: change log, index snapshots, metadata indexes, integrity checks, vector hand-off.

Everything here depends on triggers, `sqlite_sequence`, `sqlite_master`, JSON indexes or PRAGMAs of SQLite, and is in
one place so that another engine can replace it as one. It imports `repository` and what that may import; it never
commits.
"""
