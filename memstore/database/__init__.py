"""Engines, threads, pragmas, steps and migrations: the only room that says BEGIN or COMMIT.

* `identity`: whether the opened file is the one at its path.
* `driver`: one SQLite connection on a thread of its own; whole functions run there.
* `sqlite`: which SQLite it is.
* `forks`: what a forked child inherits of it.
* `file`: what a file is, before anything is done to it; engines and pragmas.
* `commit`: BEGIN, SAVEPOINT, COMMIT, and what to do when a COMMIT raises; the translation of driver errors.
* `core`: `Database`: one writer, readers, upkeep.
* `copying`: a copy of a file that is in use.
* `restoring`: a copy put in the place of what a file in use holds.
* `migration`, `batch`: bringing a file to this release's schema.
"""

from memstore.database.database import Database
from memstore.database.migrate import migrate
from memstore.database.transactions import raw

__all__ = ["Database", "migrate", "raw"]
