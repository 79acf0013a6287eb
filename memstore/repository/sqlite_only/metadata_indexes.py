"""Indexes on values in the metadata of memories, as a caller asked for them when opening the store.

The indexes are the record: which paths are indexed is read from the statements in `sqlite_master` and stands nowhere
else. They are of memories only. Assemblies are groups, a thousandth as many, and filters read them all in no time.

An index is on (namespace, type, value), because a filter compares values of one kind in one namespace: with the type
outside the index, SQLite reads every row for it (27 ms against 1.2 for 10,000 of 100,000).
"""

import re
from collections.abc import Iterable
from hashlib import blake2b

from sqlalchemy import Connection

from memstore.database import raw
from memstore.database.sqlite import sqlite3
from memstore.errors import DamagedError
from memstore.filters.json_paths import Path, check_indexed, from_json_path, json_path, quoted
from memstore.repository.statements import of_schema

_PREFIX = "ix_memory_metadata_"
_INDEX_OF = re.compile(r"json_extract\(metadata, '(.*)'\)\)$", re.DOTALL)


def paths(connection: Connection) -> frozenset[Path]:
    """The paths in metadata that are indexed. Not for a transaction that changes them: what it sees would be kept."""
    return of_schema(connection, _paths)


def _paths(connection: Connection) -> frozenset[Path]:
    return frozenset(_there(connection))


def _there(connection: Connection) -> list[Path]:
    statements = raw(connection).execute(
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'memory' AND substr(name, 1, ?) = ?",
        (len(_PREFIX), _PREFIX),
    )
    found = [(_path_of(sql), sql) for (sql,) in statements]
    return [path for path, sql in found if path is not None and _statement(path) == sql]


def missing(connection: Connection, wanted: Iterable[Path]) -> list[Path]:
    """Those *wanted* that are not indexed yet.

    Raises:
        InvalidError: with them there would be too many.
    """
    there = _there(connection)
    left = [path for path in wanted if path not in there]
    if left:
        check_indexed(len(there) + len(left))
    return left


def add(connection: Connection, wanted: Iterable[Path]) -> None:
    """Index the paths *wanted* that are not indexed yet, at about 0.2 s for 100,000 memories and a path.

    Raises:
        InvalidError: as `missing` does.
        DamagedError: a memory's metadata is no JSON.
    """
    for path in missing(connection, wanted):
        try:
            raw(connection).execute(_statement(path))
        except sqlite3.OperationalError as error:
            if "malformed JSON" in str(error):
                raise DamagedError(
                    "the metadata of a memory is no JSON, so that it cannot be indexed: open the store without "
                    "indexed_metadata, list its memories to find which it is, and give it other metadata by update()"
                ) from error
            raise


def _statement(path: Path) -> str:
    # A name in capitals is the same name to SQLite, a key in capitals is another key: hence a digest of it.
    name = _PREFIX + blake2b(json_path(path).encode(), digest_size=8).hexdigest()
    place = quoted(path)
    return (
        f"CREATE INDEX {name} ON memory (namespace_pk, json_type(metadata, {place}), json_extract(metadata, {place}))"
    )


def _path_of(statement: str) -> Path | None:
    found = _INDEX_OF.search(statement)
    return None if found is None else from_json_path(found[1].replace("''", "'"))
