"""The store works inside other programs and with hostile files."""

# Pickle and copy.

# FastAPI, Alembic, SQLAlchemy, pydantic, pandas, torch, type checkers.

# Folders that cannot be written.

# Hostile files.
