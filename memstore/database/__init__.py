"""Owns the SQLite file, its threads and transactions, and its migrations.

It is the only package that says BEGIN or COMMIT. Between calls no transaction is open, except a user's.
May import `errors`, `concurrency`, `config` and `schema`.

* `database`: `Database`, the open file: one writer, two readers and one connection for upkeep.
* `connection_thread`: one SQLite connection and its thread.
* `writer`, `write_queue`: pending writes, in order, that share transactions.
* `transactions`, `driver_errors`, `checkpoint`: BEGIN to COMMIT; driver errors translated; the log written back.
* `engine`, `async_engine`, `sqlite`: SQLAlchemy engines, pragmas, and the SQLite library.
* `inspect`, `file_identity`, `fork_safety`: what a file is; whether it was replaced; forked children.
* `migrate`: creates a file, or upgrades it to this release's schema.
* `backup_copy`, `restore_copy`: copies of a file in use, and its content replaced.
"""

from memstore.database.database import Database
from memstore.database.migrate import migrate
from memstore.database.transactions import raw

__all__ = ["Database", "migrate", "raw"]
