"""Selections of records, and their keys, found through indexes.

SQLite uses one index for a table, and without statistics often not the best: for a tag and an importance it reads all
rows of that importance (100 ms instead of 1). So this module splits a conjunction. Every term that one index answers
alone (`filters.is_served`) returns its keys without reading a row, 0.1 µs each. Small sets of keys are intersected, and
the other terms are tested on those rows only. Where every set is large, all are intersected. The result does not depend
on statistics, on the order of terms, or on how they are written.

Its statements depend on a filter, so they are built for each call and run by SQLAlchemy or as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, reduce

import numpy as np
from sqlalchemy import ColumnElement, Connection, Integer, Text, and_, bindparam, exists, func, literal, select, true

from memstore import filters
from memstore.database import raw
from memstore.filters.indexed_sql import NamespaceKeys, Sortable, Sql, by_kind, in_range, is_served, tagged
from memstore.filters.nodes import And, Compare, Contains, Exists, Field, IsIn, Node, Or, StartsWith
from memstore.models.records import Namespace
from memstore.repository import namespaces
from memstore.repository.key_lists import keys_in, keys_joined, keys_json
from memstore.repository.record_types import MEMORY, RecordType
from memstore.repository.sqlite_only import metadata_indexes
from memstore.repository.statements import Prepared
from memstore.schema import tables
from memstore.schema.namespace_path import below_end, namespace_path
from memstore.vectors.arrays import Keys

FEW = 2_000
"""The keys of every term that are read to find the term with the fewest."""

_LOOK_UP = 8  # keys of an index that are read in the time of one look-up of a record
_LOOK_UP_TAG = 30  # and in the time of one look-up of a tag of a record
_ALL = -1  # no LIMIT: a LIMIT makes SQLite pass on row after row, which takes a fifth longer
_ROWS = 10_000  # looked up in one statement
_ALWAYS = -(2**63)
_TAGS = Field("tags", "tags")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Records of a namespace, or *recursive* below it, not expired at *now*, with all *tags*, matching *where*."""

    record_type: RecordType
    namespace: Namespace
    now: datetime
    recursive: bool = False
    tags: frozenset[str] = frozenset()
    where: filters.Node | None = field(default=None)

    @property
    def terms(self) -> list[Node]:
        """The conditions of tags and filter, all of which hold."""
        terms: list[Node] = list(map(partial(Contains, _TAGS), sorted(self.tags)))
        if self.where is not None:
            terms += self.where.parts if isinstance(self.where, And) else [self.where]
        return terms

    def owned(self, namespace_pk: ColumnElement[int]) -> ColumnElement[bool]:
        """The condition on a *namespace_pk* of being one of the namespaces."""
        owners = namespaces.keys_within(self.namespace, recursive=self.recursive)
        return namespace_pk.in_(owners) if self.recursive else namespace_pk == owners

    def matching(self, terms: Sequence[Node], *, few: bool = False) -> ColumnElement[bool]:
        """The condition that all of *terms* hold; with *few*, tags are looked up for each row."""
        return filters.condition(And(tuple(terms)), self.record_type.kind, self.now, None if few else self.owned)


def condition(connection: Connection, selection: Selection) -> ColumnElement[bool]:
    """*selection* as a condition on the table of its records, for a list in an order.

    Where an index shows that few records match, they are looked up and sorted. Otherwise the rows are read in that
    order until the page is full. `IS 1` prevents a third plan: an index on one term of the filter, however many rows
    that has, and a sort of all of them for every page.
    """
    record_type, few = selection.record_type, _small(connection, selection)
    live = tables.live(selection.now) if record_type.expires else true()
    owned = selection.owned(record_type.table.c.namespace_pk)
    holds = and_(live, selection.matching(selection.terms, few=few is not None))
    if few is None:
        return and_(owned, holds.is_(true()))
    keys = func.json_each(literal(keys_json(few), Text())).table_valued("value")
    return and_(record_type.table.c.pk.in_(select(keys.c.value)), and_(owned, holds).is_(true()))


def allowed(connection: Connection, selection: Selection) -> Keys:
    """Keys of all records of *selection*, in no order, for a search.

    They can include expired records, and records that raw SQL moved to another namespace without their tags. The index
    knows the expiry and the namespace of every entry and leaves these out; here it would cost a read of every row.
    """
    return _matching(connection, selection, exact=False)


def selected(connection: Connection, selection: Selection) -> list[int]:
    """Keys of all records of *selection*, ascending."""
    return [int(key) for key in np.sort(_live(connection, selection))]


def holds(connection: Connection, selection: Selection, key: int) -> bool:
    """Whether the record *key*, in any namespace, matches tags and filter of *selection*."""
    table = selection.record_type.table
    row = select(literal(1)).select_from(table).where(table.c.pk == key, selection.matching(selection.terms, few=True))
    return connection.execute(row).first() is not None


def count(connection: Connection, selection: Selection) -> int:
    """How many records *selection* has."""
    if selection.terms:
        return len(_live(connection, selection))
    table = selection.record_type.table
    rows = select(func.count()).select_from(table).where(selection.owned(table.c.namespace_pk))
    number = int(connection.execute(rows).scalar_one())
    return number - count_expired(connection, selection)  # in a second query: else the expiry of each row is read


def count_expired(connection: Connection, selection: Selection) -> int:
    """How many records in the namespaces of *selection* have expired at its time and are not deleted yet."""
    expired = [owner for _, owner in _expired(connection, selection)]
    if not expired:
        return 0
    owners = namespaces.scope(connection, selection.namespace, recursive=selection.recursive)
    return len(expired) if owners is None else int(np.isin(expired, owners).sum())


def _live(connection: Connection, selection: Selection) -> Keys:
    keys = _matching(connection, selection, exact=True)
    expired = [pk for pk, _ in _expired(connection, selection)]
    return keys[~np.isin(keys, expired)] if expired else keys


def _expired(connection: Connection, selection: Selection) -> list[tuple[int, int]]:
    """Keys of the records that have expired and are not deleted yet, and of their namespaces: seldom any."""
    return _EXPIRED.run(connection, now=selection.now).fetchall() if selection.record_type.expires else []


_Set = Or | Contains | tuple[Sortable, ...]
"""A condition that indexes answer: an `$or`, a tag, or tests of one field, which are one range of one index."""


@dataclass(frozen=True, slots=True)
class _Finder:
    """Finds the keys of one selection's records. Every result contains a key once.

    Attributes:
        owners: the namespaces.
        paths: the paths in metadata that have an index.
        exact: whether the records of tags are read, because raw SQL can move a record to another namespace without its
            tags.
    """

    connection: Connection
    selection: Selection
    owners: NamespaceKeys
    paths: frozenset[filters.Path]
    exact: bool

    def all_of(self, terms: Sequence[Node]) -> Keys:
        """Keys of the records that match all of *terms*."""
        sets, rest = self._split(terms)
        if not sets:
            return self._scanned(rest)
        if len(sets) == 1:
            keys = self._keys(sets[0], _ALL)
        else:
            keys, remaining = self._intersected(sets)
            rest += remaining
        inexact = self.exact and any(isinstance(one, Or | Contains) for one in sets)
        return self._tested(keys, rest) if (rest or inexact) and len(keys) else keys

    def _split(self, terms: Sequence[Node]) -> tuple[list[_Set], list[Node]]:
        """The *terms* that indexes answer, and the others."""
        sets: list[_Set] = []
        ranges: dict[Field, list[Sortable]] = {}
        rest: list[Node] = []
        for term in map(by_kind, terms):
            if not self._is_served(term):
                rest.append(term)
            elif isinstance(term, Exists | IsIn | Compare | StartsWith):
                ranges.setdefault(term.field, []).append(term)
            elif isinstance(term, Or | Contains):
                sets.append(term)
        return [*sets, *map(tuple, ranges.values())], rest

    def _is_served(self, node: Node) -> bool:
        match node:
            case Or(parts):
                return all(self._is_served(by_kind(part)) for part in parts)
            case And(parts):  # in an $or: the other parts are tested on the records of this one
                return any(self._is_served(by_kind(part)) for part in parts)
            case _:
                return is_served(node, self.selection.record_type.kind, self.paths)

    def few(self, terms: Sequence[Node]) -> Keys | None:
        """A small set of keys that contains all records that match *terms*; None where every term has many."""
        return self._smallest(self._split(terms)[0])[0]

    def _smallest(self, sets: Sequence[_Set]) -> tuple[Keys | None, list[_Set]]:
        """The intersection of the small ones of *sets*, None where there is none; and the large ones."""
        smallest: Keys | None = None
        large: list[_Set] = []
        for part in sets:
            keys = self._keys(part, FEW + 1)
            if len(keys) > FEW:
                large.append(part)
            else:
                smallest = keys if smallest is None else _intersection(smallest, keys)
        return smallest, large

    def _intersected(self, sets: Sequence[_Set]) -> tuple[Keys, list[Node]]:
        """Keys in all of *sets*, but for the sets that are returned as terms, to be tested on the records."""
        result, large = self._smallest(sets)
        if result is None:
            return reduce(_intersection, (self._keys(one, _ALL) for one in sets)), []
        terms: list[Node] = []
        for one in large:
            most = len(result) * (_LOOK_UP_TAG if isinstance(one, Contains) else _LOOK_UP)
            keys = self._keys(one, most + 1)
            if len(keys) > most:
                terms += one if isinstance(one, tuple) else (one,)
            else:
                result = _intersection(result, keys)
        return result, terms

    def _keys(self, one: _Set, most: int) -> Keys:
        """The keys of one condition; where they are more than *most*, at least *most* of them."""
        match one:
            case Or(parts):
                return np.unique(np.concatenate([self._part(part, most) for part in parts]))
            case Contains(operand=name):
                query = tagged(self.selection.record_type.kind, self.owners, str(name))
            case tests:
                query = in_range(self.selection.record_type.kind, self.owners, tests)
        text, values = (query.text, query.values) if most == _ALL else (f"{query.text} LIMIT ?", (*query.values, most))
        joined = f"SELECT group_concat(pk) FROM ({text})"  # noqa: S608 - values are bound
        return keys_joined(raw(self.connection).execute(joined, values).fetchone()[0])

    def _part(self, part: Node, most: int) -> Keys:
        if isinstance(part, And):
            return self.all_of(part.parts)
        (one,), _ = self._split([part])
        return self._keys(one, most)

    def _scanned(self, terms: Sequence[Node]) -> Keys:
        """Keys of the records that match *terms*, none of which an index answers: every row is read."""
        c, namespace = self.selection.record_type.table.c, tables.namespace
        # One namespace after the other, through the index on `created_at`, although the condition names no time: most
        # rows are stored in that order.
        owned = [c.namespace_pk == namespace.c.pk, c.created_at >= literal(_ALWAYS, Integer())]
        joined = select(func.group_concat(c.pk)).where(*owned, self.selection.matching(terms)).correlate(namespace)
        within = namespaces.within(self.selection.namespace, recursive=self.selection.recursive)
        all_joined = select(func.group_concat(joined.scalar_subquery())).select_from(namespace).where(within)
        return keys_joined(self.connection.execute(all_joined).scalar_one())

    def _tested(self, keys: Keys, terms: Sequence[Node]) -> Keys:
        """Those of *keys* whose records are in the namespaces and match *terms*."""
        table, candidates = self.selection.record_type.table, keys_in()
        owner = table.c.namespace_pk
        owned = owner == self.owners if isinstance(self.owners, int) else self.selection.owned(owner)
        row = exists().where(table.c.pk == candidates.c.value, owned, self.selection.matching(terms, few=True))
        joined = select(func.group_concat(candidates.c.value)).where(row.correlate(candidates))
        matching = [_NONE]
        keys = np.sort(keys)  # the order in which the rows are stored
        for start in range(0, len(keys), _ROWS):
            chunk = keys_json(keys[start : start + _ROWS])
            matching.append(keys_joined(self.connection.execute(joined, {"keys": chunk}).scalar_one()))
        return np.concatenate(matching)


_EXPIRED = Prepared(
    lambda: select(tables.memory.c.pk, tables.memory.c.namespace_pk).where(
        tables.memory.c.expires_at <= bindparam("now")
    )
)
_NONE: Keys = np.empty(0, dtype=np.int64)


def _matching(connection: Connection, selection: Selection, *, exact: bool) -> Keys:
    finder = _finder(connection, selection, exact=exact)
    return _NONE if finder is None else finder.all_of(selection.terms)


def _small(connection: Connection, selection: Selection) -> Keys | None:
    """A small set of keys that contains all of *selection*; None where no index gives one."""
    finder = _finder(connection, selection, exact=False)
    return _NONE if finder is None else finder.few(selection.terms)


def _finder(connection: Connection, selection: Selection, *, exact: bool) -> _Finder | None:
    """The finder of *selection*; None where the namespace does not exist."""
    owners: NamespaceKeys | None = None
    if not selection.recursive:
        owners = namespaces.key(connection, selection.namespace)
        if owners is None:
            return None
    else:
        path = namespace_path(selection.namespace)
        end = below_end(path)
        start = "namespace.path >= ?"
        owners = Sql(start, (path,)) if end is None else Sql(f"{start} AND namespace.path < ?", (path, end))
    has_paths = selection.where is not None and selection.record_type is MEMORY
    paths = metadata_indexes.paths(connection) if has_paths else frozenset()
    return _Finder(connection, selection, owners, paths, exact)


def _intersection(one: Keys, other: Keys) -> Keys:
    return np.intersect1d(one, other, assume_unique=True)
