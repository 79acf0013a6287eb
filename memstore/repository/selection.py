"""Which records a verb speaks of, and their keys, found through indexes.

SQLite uses one index for a table, and without statistics often not the best: asked for a tag and an importance it reads
all rows of that importance (100 ms instead of 1). So a conjunction is taken apart here. Every term that one index
answers alone (`filters.is_served`) gives its keys without a row being read, 0.1 µs each. Terms that give few are
intersected, and the rest of the terms are then asked of those rows only; where every term gives many, all are
intersected. Nothing depends on statistics, on the order of terms, or on how they are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce

import numpy as np
from sqlalchemy import ColumnElement, Connection, Integer, Text, and_, bindparam, exists, func, literal, select, true

from memstore import filters
from memstore.database import raw
from memstore.filters.indexed_sql import Owners, Sortable, Sql, by_kind, in_range, is_served, tagged
from memstore.filters.nodes import And, Compare, Contains, Exists, Field, IsIn, Node, Or, StartsWith
from memstore.models.records import Namespace
from memstore.repository import namespaces
from memstore.repository.key_lists import Keys, keys_in, keys_joined, keys_json
from memstore.repository.record_types import MEMORY, RecordType
from memstore.repository.sqlite_only import metadata_indexes
from memstore.repository.statements import Prepared
from memstore.schema import tables
from memstore.schema.namespace_path import below_end, namespace_path
from memstore.timestamps import to_micros

FEW = 2_000
"""So many keys of every term are read before it is known which term gives the fewest."""

_LOOK_UP = 8  # keys of an index that are read while one record is looked up
_LOOK_UP_TAG = 30  # and while it is looked up whether a record carries a tag
_ALL = -1  # no LIMIT: one makes SQLite hand on row after row, which takes a fifth longer
_ROWS = 10_000  # looked up in one statement
_ALWAYS = -(2**63)
_TAGS = Field("tags", "tags")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which records: of a namespace or also *below* it, not expired at *now*, with all *tags*, matching *where*."""

    noun: RecordType
    namespace: Namespace
    now: datetime
    recursive: bool = False
    tags: frozenset[str] = frozenset()
    where: filters.Node | None = field(default=None)

    @property
    def terms(self) -> list[Node]:
        """What tags and filter ask for, all of it."""
        terms: list[Node] = [Contains(_TAGS, name) for name in sorted(self.tags)]
        if self.where is not None:
            terms += self.where.parts if isinstance(self.where, And) else [self.where]
        return terms

    def owned(self, namespace_pk: ColumnElement[int]) -> ColumnElement[bool]:
        """The condition on a *namespace_pk* of being one of the namespaces."""
        owners = namespaces.keys_within(self.namespace, recursive=self.recursive)
        return namespace_pk.in_(owners) if self.recursive else namespace_pk == owners

    def matching(self, terms: Sequence[Node], *, few: bool = False) -> ColumnElement[bool]:
        """The condition that all of *terms* hold; *few*: it is asked of so few rows that tags are looked up in each."""
        return filters.condition(And(tuple(terms)), self.noun.kind, self.now, None if few else self.owned)


def condition(connection: Connection, selection: Selection) -> ColumnElement[bool]:
    """*selection* as a condition on the noun's table, for a list in some order.

    Where an index says that few records can be meant, they are looked up and sorted; else the rows are read in that
    order until enough are found. `IS 1` keeps SQLite from a third way: an index on one term of the filter, however
    many rows that holds, and a sort of all of them for every page.
    """
    noun, few = selection.noun, _few(connection, selection)
    live = tables.live(selection.now) if noun.expires else true()
    owned = selection.owned(noun.table.c.namespace_pk)
    holds = and_(live, selection.matching(selection.terms, few=few is not None))
    if few is None:
        return and_(owned, holds.is_(true()))
    keys = func.json_each(literal(keys_json(few), Text())).table_valued("value")
    return and_(noun.table.c.pk.in_(select(keys.c.value)), and_(owned, holds).is_(true()))


def allowed(connection: Connection, selection: Selection) -> Keys:
    """Keys of all records of *selection*, in no order, for a search: the index leaves out what is in another namespace.

    Records that have expired are among them, and those that raw SQL moved to another namespace but left their tags:
    the index knows both of every entry, and here it would take a look at every row.
    """
    return _found(connection, selection, exact=False)


def selected(connection: Connection, selection: Selection) -> list[int]:
    """Keys of all records of *selection*, ascending."""
    return [int(key) for key in np.sort(_live(connection, selection))]


def holds(connection: Connection, selection: Selection, key: int) -> bool:
    """Whether the record *key*, wherever it is, matches all that tags and filter of *selection* ask for."""
    table = selection.noun.table
    row = select(literal(1)).select_from(table).where(table.c.pk == key, selection.matching(selection.terms, few=True))
    return connection.execute(row).first() is not None


def count(connection: Connection, selection: Selection) -> int:
    """How many records *selection* has."""
    if selection.terms:
        return len(_live(connection, selection))
    table = selection.noun.table
    rows = select(func.count()).select_from(table).where(selection.owned(table.c.namespace_pk))
    number = int(connection.execute(rows).scalar_one())
    expired = [owner for _, owner in _expired(connection, selection)]  # apart: else the expiry of each row is read
    if not expired:
        return number
    owners = namespaces.scope(connection, selection.namespace, recursive=selection.recursive)
    return number - (len(expired) if owners is None else int(np.isin(expired, owners).sum()))


def _live(connection: Connection, selection: Selection) -> Keys:
    keys = _found(connection, selection, exact=True)
    expired = [pk for pk, _ in _expired(connection, selection)]
    return keys[~np.isin(keys, expired)] if expired else keys


def _expired(connection: Connection, selection: Selection) -> list[tuple[int, int]]:
    """Of every record that has expired and is not deleted yet, the keys of it and of its namespace: seldom any."""
    return _EXPIRED.run(connection, now=to_micros(selection.now)).fetchall() if selection.noun.expires else []


_Set = Or | Contains | tuple[Sortable, ...]
"""What indexes answer: all parts of an `$or`, a tag, or tests of one field, which are one range of one index."""


@dataclass(frozen=True, slots=True)
class _Finder:
    """Finds the keys of one selection's records. Whatever it returns holds a key once.

    Attributes:
        owners: the namespaces.
        paths: the paths in metadata that have an index.
        exact: whether what tags gave is looked at, because raw SQL can move a record to another namespace and leave
            its tags.
    """

    connection: Connection
    selection: Selection
    owners: Owners
    paths: frozenset[filters.Path]
    exact: bool

    def all_of(self, terms: Sequence[Node]) -> Keys:
        """Keys of the records that match all of *terms*."""
        sets, rest = self._split(terms)
        if not sets:
            return self._scanned(rest)
        if len(sets) == 1:
            found = self._keys(sets[0], _ALL)
        else:
            found, left = self._narrowed(sets)
            rest += left
        unsure = self.exact and any(isinstance(one, Or | Contains) for one in sets)
        return self._asked(found, rest) if (rest or unsure) and len(found) else found

    def _split(self, terms: Sequence[Node]) -> tuple[list[_Set], list[Node]]:
        """*terms* as those that indexes answer, and the others."""
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
        return sets + [tuple(tests) for tests in ranges.values()], rest

    def _is_served(self, node: Node) -> bool:
        match node:
            case Or(parts):
                return all(self._is_served(by_kind(part)) for part in parts)
            case And(parts):  # in an $or: the other parts are asked of what the one finds
                return any(self._is_served(by_kind(part)) for part in parts)
            case _:
                return is_served(node, self.selection.noun.kind, self.paths)

    def few(self, terms: Sequence[Node]) -> Keys | None:
        """Few keys among which are those of all records that match *terms*; None where every term gives many."""
        return self._smallest(self._split(terms)[0])[0]

    def _smallest(self, sets: Sequence[_Set]) -> tuple[Keys | None, list[_Set]]:
        """Keys that are in all of *sets* that hold few, None if none does; and the others."""
        found: Keys | None = None
        many: list[_Set] = []
        for one in sets:
            keys = self._keys(one, FEW + 1)
            if len(keys) > FEW:
                many.append(one)
            else:
                found = keys if found is None else _both(found, keys)
        return found, many

    def _narrowed(self, sets: Sequence[_Set]) -> tuple[Keys, list[Node]]:
        """Keys that are in all of *sets*, but for what is still to be asked of their records."""
        found, many = self._smallest(sets)
        if found is None:
            return reduce(_both, (self._keys(one, _ALL) for one in sets)), []
        left: list[Node] = []
        for one in many:
            most = len(found) * (_LOOK_UP_TAG if isinstance(one, Contains) else _LOOK_UP)
            keys = self._keys(one, most + 1)
            if len(keys) > most:
                left += one if isinstance(one, tuple) else (one,)
            else:
                found = _both(found, keys)
        return found, left

    def _keys(self, one: _Set, most: int) -> Keys:
        """The keys under *one*; where they are more than *most*, as many of them or more."""
        match one:
            case Or(parts):
                return np.unique(np.concatenate([self._part(part, most) for part in parts]))
            case Contains(operand=name):
                found = tagged(self.selection.noun.kind, self.owners, str(name))
            case tests:
                found = in_range(self.selection.noun.kind, self.owners, tests)
        text, values = (found.text, found.values) if most == _ALL else (f"{found.text} LIMIT ?", (*found.values, most))
        joined = f"SELECT group_concat(pk) FROM ({text})"  # noqa: S608 - values are bound
        return keys_joined(raw(self.connection).execute(joined, values).fetchone()[0])

    def _part(self, part: Node, most: int) -> Keys:
        if isinstance(part, And):
            return self.all_of(part.parts)
        (one,), _ = self._split([part])
        return self._keys(one, most)

    def _scanned(self, terms: Sequence[Node]) -> Keys:
        """Keys of the records that match *terms*, of which no index answers one: every row is read."""
        c, namespace = self.selection.noun.table.c, tables.namespace
        # One namespace after the other, and always from the index on `created_at`, of which the condition asks nothing:
        # it has the rows in the order in which most of them lie.
        owned = [c.namespace_pk == namespace.c.pk, c.created_at >= literal(_ALWAYS, Integer())]
        joined = select(func.group_concat(c.pk)).where(*owned, self.selection.matching(terms)).correlate(namespace)
        within = namespaces.within(self.selection.namespace, recursive=self.selection.recursive)
        all_joined = select(func.group_concat(joined.scalar_subquery())).select_from(namespace).where(within)
        return keys_joined(self.connection.execute(all_joined).scalar_one())

    def _asked(self, keys: Keys, terms: Sequence[Node]) -> Keys:
        """Those of *keys* whose records are in the namespaces and match *terms*."""
        table, asked = self.selection.noun.table, keys_in()
        owned = self.selection.owned(table.c.namespace_pk)
        row = exists().where(table.c.pk == asked.c.value, owned, self.selection.matching(terms, few=True))
        joined = select(func.group_concat(asked.c.value)).where(row.correlate(asked))
        found = [_NONE]
        keys = np.sort(keys)  # in the order in which the rows lie
        for start in range(0, len(keys), _ROWS):
            chunk = keys_json(keys[start : start + _ROWS])
            found.append(keys_joined(self.connection.execute(joined, {"keys": chunk}).scalar_one()))
        return np.concatenate(found)


_EXPIRED = Prepared(
    select(tables.memory.c.pk, tables.memory.c.namespace_pk).where(
        tables.memory.c.expires_at <= bindparam("now", type_=Integer)
    )
)
_NONE: Keys = np.empty(0, dtype=np.int64)


def _found(connection: Connection, selection: Selection, *, exact: bool) -> Keys:
    finder = _finder(connection, selection, exact=exact)
    return _NONE if finder is None else finder.all_of(selection.terms)


def _few(connection: Connection, selection: Selection) -> Keys | None:
    """Keys of few records among which are all of *selection*; None where no index says which."""
    finder = _finder(connection, selection, exact=False)
    return _NONE if finder is None else finder.few(selection.terms)


def _finder(connection: Connection, selection: Selection, *, exact: bool) -> _Finder | None:
    """What finds the keys of *selection*; None where there is no such namespace."""
    owners = _owners(connection, selection)
    if owners is None:
        return None
    noted = selection.where is not None and selection.noun is MEMORY
    paths = metadata_indexes.paths(connection) if noted else frozenset()
    return _Finder(connection, selection, owners, paths, exact)


def _owners(connection: Connection, selection: Selection) -> Owners | None:
    """The namespaces of *selection*; None where there is no such namespace."""
    if not selection.recursive:
        return namespaces.key(connection, selection.namespace)
    path = namespace_path(selection.namespace)
    end = below_end(path)
    if end is None:
        return Sql("namespace.path >= ?", (path,))
    return Sql("namespace.path >= ? AND namespace.path < ?", (path, end))


def _both(one: Keys, other: Keys) -> Keys:
    return np.intersect1d(one, other, assume_unique=True)
