"""A `sqlite3` that can load extensions, for the peers that use sqlite-vec. Many Pythons are built without.

Import it before any module that imports `sqlite3`.
"""

import sqlite3
import sys

if not hasattr(sqlite3.Connection, "enable_load_extension"):
    import pysqlite3

    sys.modules["sqlite3"] = pysqlite3
    sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2
    sqlite3 = pysqlite3

__all__ = ["sqlite3"]
