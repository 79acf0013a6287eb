"""The tests run on Python's own SQLite, as most users' programs do, unless the environment says otherwise."""

import os

os.environ.setdefault("MEMSTORE_SQLITE", "stdlib")
