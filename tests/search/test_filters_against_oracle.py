"""The SQL of a filter against the evaluator, over records and filters drawn from the same few keys and values.

Every filter is asked in every way there is: as one condition, as keys found through indexes term by term (and as if
every term gave many), in one namespace and from the root down, with indexes on metadata and without.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from memstore.filters import Node, condition, matches, parse
from memstore.filters.nodes import FIELDS
from memstore.models.records import Assembly, Memory, RecordKind
from memstore.repository import records as record_rows
from memstore.repository import selection
from memstore.repository.record_types import BY_KIND
from memstore.repository.sqlite_only import metadata_indexes
from memstore.schema import tables
from tests.search.test_filters import assembly, memory, open_file, write

KEYS = ["a", "b", "a.b", "", "c'd", "$x", "é"]
TEXTS = [
    "",
    "a",
    "ab",
    "b",
    "A",
    "é",
    "\ud7ff",
    "\ue000",
    "\U0010ffff",
    "a\U0010ffff",
    "1",
    "true",
    "it's",
    'q"\\q',
    "\n",
    "[1]",
]
NUMBERS = [0, 1, -1, 1.0, 0.5, -0.0, 0.1 + 0.2, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), float(2**63), 1e300]
TIMES = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(microseconds=n) for n in (0, 1, 2)]
VECTOR = np.ones(2, np.float32)

# Most of the time values that are easily taken for one another.
alike = st.sampled_from([None, True, False, 0, 1, 1.0, "", "1", "a"])
scalars = alike | st.sampled_from([None, True, False, *NUMBERS, *TEXTS])
field_texts = st.sampled_from([*TEXTS, "a\0", "a\0b"])
times = st.sampled_from(TIMES)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])
words = st.frozensets(st.sampled_from(["a", "b", "c", "a\0"]), max_size=3)


def json_values(keys: list[str]) -> st.SearchStrategy[object]:
    def nest(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        return st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=2)

    # Left to itself, st.recursive draws a bare scalar once in ten times.
    return st.one_of(alike, scalars, nest(scalars), nest(scalars | nest(scalars)))


documents = st.dictionaries(st.sampled_from([*KEYS, 'q"']), json_values([*KEYS, "q\\"]), max_size=4)
memories = st.fixed_dictionaries(
    {
        "content": field_texts,
        "metadata": documents,
        "tags": words,
        "importance": st.sampled_from([0.0, 0.5, 1.0]),
        "access_count": st.sampled_from([0, 1, 2**53 + 1]),
        "pinned": st.booleans(),
        "created_at": times,
        "expires_at": st.none() | times,
        "accessed_at": st.none() | times,
        "embedding": st.sampled_from([None, VECTOR]),
    }
)
assemblies = st.fixed_dictionaries(
    {
        "name": field_texts,
        "description": field_texts,
        "metadata": documents,
        "tags": words,
        "topics": st.lists(st.sampled_from(["a", "b", "[1]"]), max_size=3, unique=True).map(tuple),
        "created_at": times,
        "revision": st.sampled_from([0, 1, 2**53 + 1]),
        "member_count": st.integers(0, 2),
        "composite": st.sampled_from([None, VECTOR]),
    }
)


@st.composite
def paths(draw: st.DrawFn) -> str:
    path = "metadata"
    for key in draw(st.lists(st.sampled_from(KEYS[:3]) | st.sampled_from(KEYS), max_size=3)):
        plain = key and "." not in key and draw(st.booleans())
        path += f".{key}" if plain else f"[{json.dumps(key)}]"
    return path


def _moved(when: datetime) -> st.SearchStrategy[datetime]:
    return zones.map(when.astimezone)


operands = json_values(KEYS) | field_texts
objects = st.dictionaries(st.sampled_from(KEYS), json_values(KEYS), max_size=4)
orderable = st.sampled_from([True, False, 0, 1]) | st.sampled_from(NUMBERS) | field_texts
numbers = st.sampled_from([0, 1]) | st.sampled_from(NUMBERS) | st.sampled_from([np.int64(1), np.float32(0.5)])
instants = times.flatmap(_moved) | times.flatmap(_moved).map(datetime.isoformat)
OF_KIND = {"text": field_texts, "number": numbers, "boolean": st.booleans(), "time": instants}
EQUALITY = ("$eq", "$ne", "$in", "$nin", "$exists")
ORDERS = ("$gt", "$gte", "$lt", "$lte")


def operators_of(field: str, noun: RecordKind) -> st.SearchStrategy[dict[str, object]]:
    """One or two operators that the field takes, or one of them negated."""
    collections = words.map(list) | words | st.sampled_from([[], ["a"], ["b"]])
    kind = "path" if field.startswith("metadata") else FIELDS[noun][field]
    members = {"path": operands, "text": field_texts}.get(kind)
    orders = {"path": orderable, **OF_KIND}.get(kind)
    wholes = objects if field == "metadata" else operands
    values = {"path": wholes, "vector": st.none(), **OF_KIND}.get(kind, collections)
    if kind == "tags" or field == "topics":
        values, members = (words.map(list) if field == "topics" else collections), st.sampled_from(["a", "b", "c", "d"])
    if field in ("expires_at", "accessed_at"):
        values |= st.none()
    options = dict.fromkeys(EQUALITY[:2], values) | dict.fromkeys(EQUALITY[2:4], st.lists(values, max_size=4))
    options["$exists"] = st.booleans()
    if field == "metadata":  # of a whole object, no other operator can match
        return _tests_by(options)
    if members is not None:
        options["$contains"] = members
    if orders is not None:
        options |= dict.fromkeys(ORDERS, orders)
    if kind in ("path", "text"):
        options["$startswith"] = field_texts
    return _tests_by(options)


def _tests_by(options: dict[str, st.SearchStrategy[object]]) -> st.SearchStrategy[dict[str, object]]:
    one = st.sampled_from(sorted(options)).flatmap(lambda name: options[name].map(lambda value: {name: value}))
    return st.one_of(one, st.tuples(one, one).map(lambda two: two[0] | two[1]), one.map(lambda test: {"$not": test}))


def filters(noun: RecordKind) -> st.SearchStrategy[dict[str, object]]:
    if noun == "memory":
        plain = [
            "id",
            "content",
            "importance",
            "access_count",
            "pinned",
            "created_at",
            "expires_at",
            "accessed_at",
            "tags",
            "embedding",
        ]
    else:
        plain = ["id", "name", "description", "revision", "member_count", "created_at", "topics", "tags", "composite"]
    fields = st.sampled_from(plain) | st.just("tags") | paths() | paths()
    test = fields.flatmap(lambda field: operators_of(field, noun).map(lambda tests: {field: tests}))
    return st.recursive(
        st.just({}) | test | st.tuples(test, test).map(lambda two: two[0] | two[1]),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
            inner.map(lambda part: {"$not": part}),
        ),
        max_leaves=4,
    )


INDEXED = [*((key,) for key in KEYS), ("v",), ("a", "b"), ("b", "a")]
NOW = TIMES[1]


@pytest.fixture(scope="module", params=["scanned", "indexed"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    connection = open_file()
    if request.param == "indexed":
        metadata_indexes.add(connection, INDEXED)
        assert sorted(metadata_indexes.paths(connection)) == sorted(INDEXED)
        connection.commit()
    yield connection
    connection.close()
    connection.engine.dispose()


def agree(
    connection: Connection, noun: RecordKind, records: list[Memory] | list[Assembly], wheres: list[dict[str, object]]
):
    table = tables.metadata.tables[noun]
    with connection.begin() as transaction:
        for pk, record in enumerate(records, start=1):
            write(connection, record, pk)
        for number, where in enumerate(wheres):
            node = parse(where, noun)
            statement = select(table.c.pk).where(table.c.pk < 1_000_000, condition(node, noun))
            by_sql = sorted(connection.execute(statement).scalars())
            matching = {pk for pk, record in enumerate(records, start=1) if matches(node, record)}
            assert by_sql == sorted(matching), where
            agree_on_keys(connection, noun, records, node, matching, number)
        transaction.rollback()


def agree_on_keys(
    connection: Connection,
    noun: RecordKind,
    records: list[Memory] | list[Assembly],
    node: Node,
    matching: set[int],
    number: int,
) -> None:
    tags = [frozenset[str](), frozenset({"a"}), frozenset({"a", "b"})][number % 3]
    carried = {pk for pk in matching if tags <= records[pk - 1].tags}
    live = {
        pk for pk in carried if (getattr(records[pk - 1], "expires_at", None) or datetime.max.replace(tzinfo=UTC)) > NOW
    }
    # Every where of an example is asked in one way of these; the examples are many.
    recursive = (number + len(records)) % 2 == 1
    few = [0, 1, selection.FEW][(number // 2 + len(records)) % 3]
    criteria = selection.Selection(
        record_type=BY_KIND[noun], namespace=(), now=NOW, recursive=recursive, tags=tags, where=node
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "FEW", few)
        keys = selection.allowed(connection, criteria)
        assert sorted(own(keys)) == sorted(carried), (node, tags, recursive, few)
        assert own(selection.selected(connection, criteria)) == sorted(live), (node, tags, recursive, few)
    page, _ = record_rows.page(connection, criteria, record_rows.SortOrder("created_at"), None, 1_000)
    assert sorted(own(position.pk for position in page)) == sorted(live), (node, tags, recursive)


def own(keys: Iterable[int]) -> list[int]:
    """*keys* without those of the members of assemblies."""
    return [int(key) for key in keys if key < 1_000_000]


checked = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@checked
@given(st.lists(memories, min_size=1, max_size=5), st.lists(filters("memory"), min_size=1, max_size=6))
def test_filters_over_memories_select_what_the_evaluator_says(connection, drawn, wheres):
    agree(connection, "memory", [memory(f"{n}", **fields) for n, fields in enumerate(drawn)], wheres)


@checked
@given(st.lists(assemblies, min_size=1, max_size=4), st.lists(filters("assembly"), min_size=1, max_size=6))
def test_filters_over_assemblies_select_what_the_evaluator_says(connection, drawn, wheres):
    agree(connection, "assembly", [assembly(f"{n}", **fields) for n, fields in enumerate(drawn)], wheres)


def every_test(value: object) -> list[dict[str, object]]:
    """Every operator that takes the value."""
    tests: list[dict[str, object]] = [{"$eq": value}, {"$ne": value}, {"$contains": value}, {"$exists": True}]
    if isinstance(value, bool | int | float | str):
        tests += [{name: value} for name in ("$gt", "$gte", "$lt", "$lte")]
    return [*tests, {"$startswith": value}] if isinstance(value, str) else tests


@checked
@given(st.lists(json_values(KEYS), min_size=1, max_size=4), st.lists(operands, min_size=1, max_size=3))
def test_every_operator_over_values_in_metadata_selects_what_the_evaluator_says(connection, stored, drawn):
    values = [*stored, *drawn]  # every stored value is asked for
    wheres = [{"metadata.v": test} for value in values for test in every_test(value)]
    wheres += [{"metadata.v": {"$in": values}}, {"metadata.v": {"$nin": drawn}}, {"metadata.v": {"$eq": values}}]
    records = [memory(f"{n}", metadata={"v": value}) for n, value in enumerate([*stored, stored])]
    agree(connection, "memory", records, wheres)


@checked
@given(st.lists(field_texts, min_size=1, max_size=4), st.lists(words, min_size=1, max_size=4), field_texts, words)
def test_every_operator_over_texts_and_tags_selects_what_the_evaluator_says(connection, texts, sets, text, tags):
    wheres: list[dict[str, object]] = [{"content": test} for test in every_test(text)]
    wheres += [{"tags": {name: tags}} for name in ("$eq", "$ne")]
    wheres += [{"tags": {"$in": [tags, sets[0]]}}, *({"tags": {"$contains": tag}} for tag in ("a", "a\0"))]
    records = [memory(f"{n}", content=content) for n, content in enumerate(texts)]
    records += [memory(f"tagged {n}", tags=tags) for n, tags in enumerate(sets)]
    agree(connection, "memory", records, wheres)
