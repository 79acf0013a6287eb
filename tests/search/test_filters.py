"""The filter language: what each operator selects, what is refused, and with which advice.

Every answer is asked twice: of the SQL, and of the evaluator.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from functools import cache

import numpy as np
import pytest
from sqlalchemy import Connection, StaticPool, create_engine, insert, select

from memstore import FilterError
from memstore.filters import EVERYTHING, MAX_OPERANDS, condition, matches, parse
from memstore.models.records import Assembly, Json, Memory, RecordKind
from memstore.schema import tables

T0 = datetime(2024, 5, 17, 12, 30, 15, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)


def open_file() -> Connection:
    """An empty file in memory with two namespaces that have tags of the same names."""
    connection = create_engine("sqlite://", poolclass=StaticPool).connect()
    tables.metadata.create_all(connection)
    connection.execute(insert(tables.namespace), [{"pk": 1, "path": "other/"}, {"pk": 2, "path": ""}])
    connection.execute(
        insert(tables.vector_space),
        [{"pk": pk, "kind": kind, "dimension": 2, "metric": "l2"} for pk, kind in ((1, "memory"), (2, "assembly"))],
    )
    connection.execute(insert(tables.tag), [{"namespace_pk": 1, "name": name} for name in ("a", "b")])
    connection.commit()
    return connection


shared_file = cache(open_file)


def write(connection: Connection, record: Memory | Assembly, pk: int) -> None:
    """Insert one record under the key *pk*, as its own statements, into the second namespace."""
    noun = "memory" if isinstance(record, Memory) else "assembly"
    table = tables.metadata.tables[noun]
    values = {column.name: getattr(record, column.name) for column in table.c if hasattr(record, column.name)}
    if isinstance(record, Assembly):
        values["topics"] = list(record.topics)
    connection.execute(insert(table).values(pk=pk, namespace_pk=2, **values))
    for name in sorted(record.tags):
        tag_pk = connection.execute(
            select(tables.tag.c.pk).where(tables.tag.c.namespace_pk == 2, tables.tag.c.name == name)
        ).scalar()
        if tag_pk is None:
            tag_pk = connection.execute(insert(tables.tag).values(namespace_pk=2, name=name)).inserted_primary_key[0]
        connection.execute(insert(tables.metadata.tables[f"{noun}_tag"]).values({f"{noun}_pk": pk, "tag_pk": tag_pk}))
    if isinstance(record, Assembly):
        _write_members(connection, record, pk)
    elif record.embedding is not None:
        connection.execute(
            insert(tables.memory_vector).values(memory_pk=pk, space_pk=1, vector=record.embedding.tobytes())
        )


def _write_members(connection: Connection, record: Assembly, pk: int) -> None:
    vector = None if record.composite is None else record.composite.tobytes()
    connection.execute(
        insert(tables.assembly_vector).values(
            assembly_pk=pk, space_pk=2, sum=b"", length=0, count=record.member_count, vector=vector, revision=0
        )
    )
    for index in range(record.member_count):
        member = 1_000_000 + 1_000 * pk + index
        write(connection, memory(f"member {member}"), member)
        connection.execute(insert(tables.assembly_member).values(assembly_pk=pk, memory_pk=member))


def memory(id: str, **fields: object) -> Memory:
    times = {"created_at": T0, "updated_at": T0}
    return Memory(**{"id": id, "content": "", **times, **fields})  # type: ignore[arg-type]


def assembly(id: str, **fields: object) -> Assembly:
    times = {"created_at": T0, "updated_at": T0}
    return Assembly(**{"id": id, **times, **fields})  # type: ignore[arg-type]


def noted(**values: Json) -> list[Memory]:
    """One memory for each value, under the metadata key `v`, and one, `none`, without the key."""
    return [memory("none"), *(memory(name, metadata={"v": value}) for name, value in values.items())]


def selected(where: Mapping[str, object], records: list[Memory] | list[Assembly]) -> set[str]:
    """The ids of the records that the filter selects, by SQL and by the evaluator."""
    noun: RecordKind = "assembly" if isinstance(records[0], Assembly) else "memory"
    node = parse(where, noun)
    table = tables.metadata.tables[noun]
    statement = select(table.c.id).where(table.c.namespace_pk == 2, table.c.pk < 1_000_000, condition(node, noun))
    connection = shared_file()
    with connection.begin() as transaction:
        for pk, record in enumerate(records, start=1):
            write(connection, record, pk)
        ids = set(connection.execute(statement).scalars())
        transaction.rollback()
    assert ids == {record.id for record in records if matches(node, record)}
    return ids


def refused(where: object, noun: RecordKind = "memory") -> str:
    """The advice with which the filter is refused."""
    with pytest.raises(FilterError) as caught:
        parse(where, noun)  # type: ignore[arg-type]
    return str(caught.value)


# The shape of a filter


def test_an_empty_filter_matches_everything():
    assert selected({}, noted(a=1)) == {"none", "a"}
    assert parse({}, "memory") == parse({"$and": [{}, {"$and": [{}]}]}, "memory") == EVERYTHING


def test_the_negation_of_an_empty_filter_matches_nothing():
    assert selected({"$not": {}}, noted(a=1)) == set()


def test_several_keys_and_several_operators_are_joined_by_and():
    records = [memory("a", importance=0.2), memory("b", importance=0.5), memory("c", importance=0.8)]
    assert selected({"importance": {"$gt": 0.1, "$lt": 0.6}, "id": {"$ne": "a"}}, records) == {"b"}


def test_or_matches_where_one_part_does():
    assert selected({"$or": [{"metadata.v": 1}, {"metadata.v": "x"}]}, noted(a=1, b="x", c=2)) == {"a", "b"}


def test_not_is_the_exact_negation_of_a_whole_filter():
    where = {"metadata.v": {"$gt": 1}, "id": {"$ne": "c"}}
    records = noted(a=1, b=2, c=3, d=None, e="x")
    assert selected(where, records) == {"b"}
    assert selected({"$not": where}, records) == {"none", "a", "c", "d", "e"}
    assert selected({"$not": {"$not": where}}, records) == {"b"}


def test_not_under_a_field_negates_the_operators_together():
    records = noted(a=1, b=2, c=3, d="x")
    assert selected({"metadata.v": {"$not": {"$gte": 2, "$lte": 2}}}, records) == {"none", "a", "c", "d"}


@pytest.mark.parametrize("where", [None, 5, "id", ["id"], {5: 1}, {"$or": [5]}, {"$not": None}])
def test_what_is_no_mapping_of_texts_is_refused(where):
    assert "filter" in refused(where)


@pytest.mark.parametrize("join", ["$and", "$or"])
@pytest.mark.parametrize("value", [[], {}, {"id": "a"}, "id", None])
def test_joins_take_a_list_that_is_not_empty(join, value):
    assert f"Invalid {join}: expected a list" in refused({join: value})


def test_operators_beside_plain_keys_are_refused():
    advice = refused({"metadata.v": {"$gt": 1, "b": 2}})
    assert "$gt" in advice
    assert "$eq" in advice


def test_an_operator_at_the_top_is_sent_under_a_field():
    assert "Write it under a field" in refused({"$gt": 1})


def test_a_join_under_a_field_is_sent_to_the_top():
    assert "joins whole filters" in refused({"metadata.v": {"$or": [1, 2]}})


def test_an_unknown_operator_is_refused_with_the_nearest():
    assert "Did you mean $gte?" in refused({"importance": {"$gtee": 1}})
    assert "Did you mean $and?" in refused({"$andd": []})
    assert "Expected one of" in refused({"importance": {"$regex": "x"}})


@pytest.mark.parametrize("operand", [5, "x", None, {}, {"a": 1}, {"$gt": 1, "a": 1}])
def test_not_under_a_field_takes_operators_only(operand):
    assert "$ne" in refused({"metadata.v": {"$not": operand}})


# Fields and paths


def test_an_unknown_field_is_refused_with_the_nearest():
    assert "Did you mean importance?" in refused({"importence": 1})
    assert "metadata.source" in refused({"source": "chat"})
    assert "Unknown assembly field 'content'" in refused({"content": "x"}, "assembly")


@pytest.mark.parametrize("name", ["namespace", "namespace.a"])
def test_namespace_is_refused_and_points_to_the_view(name):
    advice = refused({name: ["a"]})
    assert "store.namespace(...)" in advice
    assert "recursive=True" in advice


@pytest.mark.parametrize("name", ["id.a", "tags.a", 'content["a"]'])
def test_only_metadata_has_values_inside(name):
    assert "only metadata" in refused({name: 1})


@pytest.mark.parametrize(
    "name",
    [
        "metadata.",
        "metadata.a.",
        "metadata..a",
        'metadata["a"]b',
        "metadata[a]",
        "metadata.a[0]",
        'metadata["a',
        'metadata["a"',
    ],
)
def test_a_broken_path_is_refused(name):
    assert 'metadata[""]' in (advice := refused({name: 1})) or '["key"]' in advice


def test_a_path_steps_through_objects_and_never_into_lists():
    records = [memory("a", metadata={"a": {"b": 1}}), memory("b", metadata={"a": [1]}), memory("c", metadata={"a": 1})]
    assert selected({"metadata.a.b": 1}, records) == {"a"}
    assert selected({"metadata.a.0": {"$exists": True}}, records) == set()
    assert selected({"metadata.a.b": {"$exists": False}}, records) == {"b", "c"}


@pytest.mark.parametrize(
    "key", ["a.b", "", "a[0]", "it's", "$", "$gt", "#", "*", " ", "ключ", "🙂", "a]", ":p", "%s", "?"]
)
def test_any_key_is_reached_in_brackets(key):
    records = [memory("yes", metadata={"x": {key: {"y": 1}}}), memory("no", metadata={"x": {key + "x": {"y": 1}}})]
    assert selected({f"metadata.x[{json.dumps(key)}].y": 1}, records) == {"yes"}
    assert selected({f'metadata["x"][{json.dumps(key, ensure_ascii=False)}]["y"]': 1}, records) == {"yes"}
    assert selected({"metadata.x": {"$eq": {key: {"y": 1}}}}, records) == {"yes"}


def test_sql_in_keys_and_values_is_data():
    evil = "x') OR 1=1; DROP TABLE memory; --"
    records = [memory("yes", metadata={evil: evil}), memory("no", metadata={"a": 1})]
    assert selected({f"metadata[{json.dumps(evil)}]": evil}, records) == {"yes"}
    assert selected({f"metadata.{evil}": {"$startswith": "x')"}}, records) == {"yes"}
    assert selected({"metadata": {"$eq": {evil: evil}}}, records) == {"yes"}
    assert selected({"id": evil}, records) == set()


@pytest.mark.parametrize("key", ['a"b', "a\\b", "a\nb", "\0", "\x1f"])
def test_a_key_that_sqlite_cannot_name_is_refused_in_paths_and_operands(key):
    assert "SQLite" in refused({f"metadata[{json.dumps(key)}]": 1})
    assert "SQLite" in refused({"metadata.v": {"$eq": [{key: 1}]}})


def test_such_a_key_in_a_record_is_still_counted():
    records = noted(a={"x": 1, 'q"': 2}, b={"x": 1})
    assert selected({"metadata.v": {"x": 1}}, records) == {"b"}


# Values


def test_values_are_the_same_only_within_their_kind():
    records = noted(null=None, true=True, false=False, one=1, real=1.0, zero=0, text="1", word="true", empty="")
    assert selected({"metadata.v": None}, records) == {"null"}
    assert selected({"metadata.v": True}, records) == {"true"}
    assert selected({"metadata.v": False}, records) == {"false"}
    assert selected({"metadata.v": 1}, records) == {"one", "real"}
    assert selected({"metadata.v": 1.0}, records) == {"one", "real"}
    assert selected({"metadata.v": -0.0}, records) == {"zero"}
    assert selected({"metadata.v": "1"}, records) == {"text"}
    assert selected({"metadata.v": ""}, records) == {"empty"}


def test_booleans_are_no_numbers_in_record_fields_either():
    records = [memory("a", importance=1.0, access_count=1)]
    assert selected({"access_count": {"$in": [1.0]}}, records) == {"a"}
    for test in (True, {"$gt": False}, {"$in": [True, 1.0]}):
        assert "expected a number" in refused({"access_count": test})
        assert "expected a number" in refused({"importance": test})


def test_integers_and_floats_compare_exactly_at_the_edge_of_precision():
    records = noted(odd=2**53 + 1, even=2**53, most=2**63 - 1, least=-(2**63))
    assert selected({"metadata.v": float(2**53)}, records) == {"even"}
    assert selected({"metadata.v": {"$gt": float(2**53)}}, records) == {"odd", "most"}
    assert selected({"metadata.v": {"$gte": float(2**63)}}, records) == set()
    assert selected({"metadata.v": {"$lte": -(2.0**63)}}, records) == {"least"}
    assert selected({"metadata.v": {"$in": [2**63 - 1, 0.5]}}, records) == {"most"}


def test_floats_are_found_by_their_own_value():
    values = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1e22, 123456789.12345679]
    for value in values:
        assert selected({"metadata.v": value}, noted(a=value, b=math.nextafter(value, 0))) == {"a"}


def test_texts_compare_by_code_point_and_case():
    records = noted(upper="Z", lower="a", accent="é", astral="🙂", private="\uffff")
    assert selected({"metadata.v": {"$gt": "Z"}}, records) == {"lower", "accent", "astral", "private"}
    assert selected({"metadata.v": {"$gt": "\uffff"}}, records) == {"astral"}
    assert selected({"metadata.v": "z"}, records) == set()
    assert selected({"metadata.v": "e\u0301"}, records) == set()


def test_an_enums_member_is_its_text():
    class Kind(StrEnum):
        NOTE = "note"

    assert selected({"metadata.v": Kind.NOTE}, noted(a="note")) == {"a"}


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, math.nan, math.inf, -math.inf, b"x", object(), {1}, np.complex64(1), "\ud800", T0]
)
@pytest.mark.parametrize(
    "wrap", [lambda v: v, lambda v: {"$ne": v}, lambda v: {"$in": [v]}, lambda v: {"$eq": [{"a": v}]}]
)
def test_values_that_are_never_stored_are_refused(value, wrap):
    refused({"metadata.v": wrap(value)})


def test_keys_of_an_object_are_text():
    assert "text" in refused({"metadata.v": {"$eq": {1: 2}}})
    assert "surrogate" in refused({"metadata.v": {"\udfff": 2}})


# Missing, null and two-valued truth


def test_null_is_not_missing():
    records = noted(null=None, one=1)
    assert selected({"metadata.v": None}, records) == {"null"}
    assert selected({"metadata.v": {"$ne": None}}, records) == {"none", "one"}
    assert selected({"metadata.v": {"$exists": True}}, records) == {"null", "one"}
    assert selected({"metadata.v": {"$exists": False}}, records) == {"none"}
    assert selected({"metadata.v": {"$not": {"$exists": False}}}, records) == {"null", "one"}


NEGATIONS = [
    ({"$eq": 1}, {"one"}),
    ({"$in": [1, "x"]}, {"one", "text"}),
    ({"$in": []}, set()),
    ({"$gt": 0}, {"one"}),
    ({"$lte": "y"}, {"text"}),
    ({"$contains": "x"}, {"text", "list"}),
    ({"$startswith": ""}, {"text"}),
    ({"$eq": ["x"]}, {"list"}),
    ({"$eq": {"x": 1}}, {"object"}),
    ({"$exists": True}, {"null", "one", "text", "list", "object"}),
]


@pytest.mark.parametrize(("test", "holds"), NEGATIONS)
def test_a_negation_matches_all_the_rest_missing_and_null_among_them(test, holds):
    records = noted(null=None, one=1, text="x", list=["x"], object={"x": 1})
    rest = {record.id for record in records} - holds
    assert selected({"metadata.v": test}, records) == holds
    assert selected({"metadata.v": {"$not": test}}, records) == rest
    assert selected({"$not": {"metadata.v": test}}, records) == rest
    assert selected({"$not": {"$or": [{"metadata.v": test}, {"id": "?"}]}}, records) == rest
    assert selected({"$not": {"$and": [{"metadata.v": test}, {"id": {"$ne": "?"}}]}}, records) == rest


def test_ne_and_nin_match_where_the_field_is_missing():
    records = noted(one=1, two=2)
    assert selected({"metadata.v": {"$ne": 1}}, records) == {"none", "two"}
    assert selected({"metadata.v": {"$nin": [1, 2]}}, records) == {"none"}
    assert selected({"metadata.v": {"$nin": []}}, records) == {"none", "one", "two"}


def test_a_record_field_of_none_is_null_and_always_there():
    records = [memory("never"), memory("soon", expires_at=T0)]
    assert selected({"expires_at": None}, records) == {"never"}
    assert selected({"expires_at": {"$ne": None}}, records) == {"soon"}
    assert selected({"expires_at": {"$exists": True}}, records) == {"never", "soon"}
    assert selected({"expires_at": {"$exists": False}}, records) == set()
    assert selected({"expires_at": {"$in": [None, T0]}}, records) == {"never", "soon"}
    assert selected({"expires_at": {"$not": {"$lt": T0 + HOUR}}}, records) == {"never"}
    assert "expected text" in refused({"content": None})


@pytest.mark.parametrize("operand", [1, None, "yes", []])
def test_exists_takes_a_boolean(operand):
    assert "$exists: expected True or False" in refused({"metadata.v": {"$exists": operand}})


# Orders


def test_orders_hold_within_one_kind_only():
    records = noted(null=None, true=True, false=False, one=1, half=0.5, text="b", list=[5], object={"a": 5})
    assert selected({"metadata.v": {"$gt": 0}}, records) == {"one", "half"}
    assert selected({"metadata.v": {"$gte": 1}}, records) == {"one"}
    assert selected({"metadata.v": {"$lt": 1}}, records) == {"half"}
    assert selected({"metadata.v": {"$lte": 1}}, records) == {"one", "half"}
    assert selected({"metadata.v": {"$gt": "a"}}, records) == {"text"}
    assert selected({"metadata.v": {"$gt": False}}, records) == {"true"}
    assert selected({"metadata.v": {"$gte": False}}, records) == {"true", "false"}


@pytest.mark.parametrize("operator", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize(
    ("field", "operand"),
    [
        ("content", 1),
        ("access_count", "1"),
        ("importance", [0.5]),
        ("importance", {"a": 1}),
        ("created_at", 1),
        ("id", T0),
        ("pinned", 1),
        ("metadata.v", T0),
    ],
)
def test_an_operand_of_a_type_that_the_field_never_has_is_refused(operator, field, operand):
    assert "Invalid operand" in refused({field: {operator: operand}})
    assert "Invalid operand" in refused({field: {"$not": {operator: operand}}})


def test_an_order_over_another_type_in_metadata_matches_nothing_and_is_no_error():
    for operator in ("$gt", "$gte", "$lt", "$lte"):
        assert selected({"metadata.v": {operator: "x"}}, noted(a=1)) == set()
        assert selected({"metadata.v": {"$not": {operator: "x"}}}, noted(a=1)) == {"none", "a"}


@pytest.mark.parametrize("name", ["$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize("operand", [None, [1], {"a": 1}, {1}, b"x"])
def test_an_order_takes_a_scalar(name, operand):
    assert f"{name}: expected a number" in refused({"metadata.v": {name: operand}})


def test_times_compare_as_instants_whatever_their_offset():
    records = [memory("a", created_at=T0), memory("b", created_at=T0 + timedelta(microseconds=1))]
    there = T0.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    assert selected({"created_at": there}, records) == {"a"}
    assert selected({"created_at": {"$gt": there}}, records) == {"b"}
    assert selected({"created_at": {"$lte": there}}, records) == {"a"}
    assert selected({"created_at": {"$in": [there, T0 - HOUR]}}, records) == {"a"}


def test_times_before_1970_compare():
    records = [memory("a", created_at=datetime(1, 1, 1, tzinfo=UTC)), memory("b")]
    assert selected({"created_at": {"$lt": datetime(1969, 1, 1, tzinfo=UTC)}}, records) == {"a"}


def test_a_naive_time_is_refused():
    assert "aware datetime" in refused({"created_at": {"$gt": datetime(2024, 1, 1)}})  # noqa: DTZ001
    assert "9999" in refused({"created_at": datetime.max.replace(tzinfo=timezone(-HOUR))})


@pytest.mark.parametrize("text", ["2024-05-17T14:30:15.123456+02:00", "2024-05-17T12:30:15.123456Z", np.str_(T0)])
def test_an_aware_time_can_be_iso_text(text):
    records = [memory("a", created_at=T0), memory("b", created_at=T0 + HOUR)]
    assert selected({"created_at": text}, records) == {"a"}
    assert selected({"created_at": {"$gt": text}}, records) == {"b"}
    assert selected({"created_at": {"$nin": [text]}}, records) == {"b"}


@pytest.mark.parametrize("text", ["2024-05-17", "2024-05-17T12:30:15"])
def test_iso_text_without_an_offset_is_refused(text):
    assert "no offset from UTC" in refused({"created_at": {"$gt": text}})


@pytest.mark.parametrize("value", ["yesterday", "", 1_700_000_000, True, None, [T0], {"at": 1}])
def test_what_is_no_time_is_refused_for_a_time(value):
    assert "Invalid" in refused({"created_at": {"$gt": value}})
    assert "Invalid" in refused({"created_at": {"$in": [T0, value]}})


def test_a_time_is_refused_for_metadata_because_json_has_no_times():
    assert "isoformat()" in refused({"metadata.v": T0})
    assert "isoformat()" in refused({"metadata.v": {"$nin": [[T0]]}})


@pytest.mark.parametrize("field", ["importance", "content", "created_at", "pinned", "tags", "metadata.v", "metadata"])
@pytest.mark.parametrize("operator", ["gt", "in", "exists", "eq", "contains", "not"])
def test_an_operator_without_its_dollar_sign_is_refused(field, operator):
    assert f"Write {{'${operator}': …}}" in refused({field: {operator: 1}})


def test_an_object_whose_key_is_the_name_of_an_operator_can_be_compared():
    assert selected({"metadata.v": {"$eq": {"in": 1}}}, noted(a={"in": 1}, b=1)) == {"a"}


def test_an_object_is_refused_for_the_whole_metadata_unless_it_is_meant():
    records = [memory("a", metadata={"kind": "note"}), memory("b", metadata={"kind": "note", "by": "x"})]
    assert "{'metadata.key': …} for the key 'kind'" in refused({"metadata": {"kind": "note"}})
    assert selected({"metadata": {"$eq": {"kind": "note"}}}, records) == {"a"}
    assert selected({"metadata": {"$ne": {"kind": "note"}}}, records) == {"b"}
    assert selected({"metadata": {}}, records) == set()


@pytest.mark.parametrize("test", ["x", 1, None, ["x"], {"$gt": 1}, {"$contains": "x"}, {"$startswith": "x"}])
def test_what_metadata_never_is_is_refused_for_the_whole_metadata(test):
    assert "write the path" in refused({"metadata": test})


@pytest.mark.parametrize("number", [np.int64(1), np.int8(1), np.uint64(1), np.float64(1), np.float32(1), np.float16(1)])
def test_a_number_of_numpy_is_the_number_that_it_equals(number):
    records = [memory("a", access_count=1, importance=1.0, metadata={"v": 1}), memory("b")]
    for field in ("access_count", "importance", "metadata.v"):
        assert selected({field: number}, records) == selected({field: {"$in": [number]}}, records) == {"a"}
        assert selected({field: {"$gte": number}}, records) == {"a"}
    assert selected({"pinned": np.bool_(True)}, [memory("p", pinned=True), memory("q")]) == {"p"}
    assert selected({"content": np.str_("x")}, [memory("p", content="x"), memory("q")]) == {"p"}


# Membership and parts


def test_in_takes_any_collection_of_mixed_values():
    records = noted(null=None, one=1, text="x", list=[1], true=True)
    assert selected({"metadata.v": {"$in": [1, None, [1]]}}, records) == {"null", "one", "list"}
    assert selected({"metadata.v": {"$in": {"x", True}}}, records) == {"text", "true"}
    assert selected({"metadata.v": {"$nin": (1, None)}}, records) == {"none", "text", "list", "true"}


@pytest.mark.parametrize("operand", ["abc", 1, None, {"a": 1}])
def test_in_refuses_what_is_no_list(operand):
    assert "expected a list" in refused({"metadata.v": {"$in": operand}})
    assert "expected a list" in refused({"metadata.v": {"$nin": operand}})


def test_contains_is_a_part_of_a_text_and_a_member_of_a_list():
    records = noted(text="abc", list=["b", 1, [2], {"k": None}, None, True], other=["abc"], number=1, object={"b": "b"})
    assert selected({"metadata.v": {"$contains": "b"}}, records) == {"text", "list"}
    assert selected({"metadata.v": {"$contains": ""}}, records) == {"text"}
    assert selected({"metadata.v": {"$contains": 1}}, records) == {"list"}
    assert selected({"metadata.v": {"$contains": 1.0}}, records) == {"list"}
    assert selected({"metadata.v": {"$contains": None}}, records) == {"list"}
    assert selected({"metadata.v": {"$contains": True}}, records) == {"list"}
    assert selected({"metadata.v": {"$contains": False}}, records) == set()
    assert selected({"metadata.v": {"$contains": [2]}}, records) == {"list"}
    assert selected({"metadata.v": {"$contains": {"k": None}}}, records) == {"list"}


def test_contains_takes_wildcards_as_they_are():
    assert selected({"content": {"$contains": "%_"}}, [memory("a", content="x%_y"), memory("b", content="xaby")]) == {
        "a"
    }


def test_a_list_member_that_looks_like_json_is_text():
    records = noted(text=["[1]", "{"], list=[[1]])
    assert selected({"metadata.v": {"$contains": [1]}}, records) == {"list"}
    assert selected({"metadata.v": {"$contains": "[1]"}}, records) == {"text"}


@pytest.mark.parametrize("field", ["access_count", "created_at", "importance", "pinned", "metadata", "embedding"])
@pytest.mark.parametrize("operator", ["$contains", "$startswith"])
def test_fields_without_parts_have_no_operators_on_parts(field, operator):
    assert f"of {field}: expected one of" in refused({field: {operator: "a"}})


@pytest.mark.parametrize("field", ["content", "tags"])
@pytest.mark.parametrize("operand", [1, None, ["a"]])
def test_contains_on_texts_and_tags_takes_a_text(field, operand):
    assert "expected text" in refused({field: {"$contains": operand}})


@pytest.mark.parametrize("prefix", ["", "a", "ab", "a\0", "\ud7ff", "a\U0010ffff", "\U0010ffff", "%", "A"])
def test_startswith_is_a_prefix_by_code_point(prefix):
    texts = [
        "",
        "a",
        "ab",
        "abc",
        "b",
        "a\0",
        "a\0b",
        "\ud7ff",
        "\ud7ffx",
        "\ue000",
        "a\U0010ffff",
        "a\U0010ffffz",
        "\U0010ffff\U0010ffff",
        "%x",
        "A",
    ]
    records = [memory(f"{index}", content=text) for index, text in enumerate(texts)]
    expected = {f"{index}" for index, text in enumerate(texts) if text.startswith(prefix)}
    assert selected({"content": {"$startswith": prefix}}, records) == expected
    records = [memory(r.id, metadata={"v": r.content}) for r in records if "\0" not in r.content]
    assert selected({"metadata.v": {"$startswith": prefix}}, records) == expected & {r.id for r in records}


def test_startswith_takes_a_text_and_matches_texts_only():
    assert "expected text" in refused({"metadata.v": {"$startswith": 1}})
    assert selected({"metadata.v": {"$startswith": "1"}}, noted(number=1, list=["1"], text="12")) == {"text"}


def test_record_fields_are_compared_beyond_u0000():
    records = [
        memory("a\0b", content="a\0b", tags=frozenset({"t\0u"})),
        memory("a\0c", content="a", tags=frozenset({"t"})),
    ]
    assert selected({"id": "a\0b"}, records) == {"a\0b"}
    assert selected({"id": {"$gt": "a\0b"}}, records) == {"a\0c"}
    assert selected({"content": {"$contains": "\0b"}}, records) == {"a\0b"}
    assert selected({"content": {"$contains": "b"}}, records) == {"a\0b"}
    assert selected({"content": {"$in": ["a", "z"]}}, records) == {"a\0c"}
    assert selected({"tags": {"$contains": "t\0u"}}, records) == {"a\0b"}
    assert selected({"tags": {"t"}}, records) == {"a\0c"}


def test_metadata_holds_no_u0000_so_such_an_operand_matches_nothing():
    records = noted(a="a", ab="ab", list=["a"])
    assert selected({"metadata.v": "a\0b"}, records) == set()
    assert selected({"metadata.v": {"$ne": "a\0b"}}, records) == {"none", "a", "ab", "list"}
    assert selected({"metadata.v": {"$contains": "a\0"}}, records) == set()
    assert selected({"metadata.v": {"$startswith": "a\0"}}, records) == set()


# Deep equality


def test_deep_equality_heeds_types_and_the_order_of_lists_but_not_of_keys():
    value: dict[str, Json] = {"a": [1, {"b": None, "c": [True, "x"]}], "d": {}}
    records = noted(
        same=value,
        reordered={"d": {}, "a": [1.0, {"c": [True, "x"], "b": None}]},
        swapped={"a": [{"b": None, "c": [True, "x"]}, 1], "d": {}},
        boolean={"a": [True, {"b": None, "c": [True, "x"]}], "d": {}},
        more={**value, "e": None},
        longer={"a": [1, {"b": None, "c": [True, "x"]}, None], "d": {}},
        other={"a": [1, {"b": None, "c": [True, "x"]}], "d": []},
        missing={"a": [1, {"c": [True, "x"]}], "d": {}},
    )
    assert selected({"metadata.v": {"$eq": value}}, records) == {"same", "reordered"}
    assert selected({"metadata.v": value}, records) == {"same", "reordered"}
    assert selected({"metadata": {"$eq": {"v": value}}}, records) == {"same", "reordered"}
    assert selected({"metadata.v.a": [1, {"b": None, "c": [True, "x"]}]}, records) == {
        "same",
        "reordered",
        "more",
        "other",
    }


def test_empty_lists_and_objects_are_the_same_as_themselves_only():
    records = noted(list=[], object={}, null=None, text="", full=[[]])
    assert selected({"metadata.v": []}, records) == {"list"}
    assert selected({"metadata.v": {}}, records) == {"object"}
    assert selected({"metadata": {}}, records) == {"none"}
    assert selected({"metadata.v": ((),)}, records) == {"full"}


def test_an_object_with_operators_for_keys_is_compared_by_eq():
    assert selected({"metadata.v": {"$eq": {"$gt": 1}}}, noted(a={"$gt": 1}, b=2)) == {"a"}


# Tags, vectors, assemblies


def tagged() -> list[Memory]:
    return [memory("".join(tags) or "-", tags=frozenset(tags)) for tags in ("", "a", "b", "ab", "abc")]


def test_tags_contain_a_tag():
    assert selected({"tags": {"$contains": "a"}}, tagged()) == {"a", "ab", "abc"}
    assert selected({"tags": {"$not": {"$contains": "a"}}}, tagged()) == {"-", "b"}
    assert selected({"tags": {"$contains": "A"}}, tagged()) == set()


def test_tags_are_compared_as_whole_sets():
    assert selected({"tags": ["b", "a", "a"]}, tagged()) == {"ab"}
    assert selected({"tags": {"$eq": set()}}, tagged()) == {"-"}
    assert selected({"tags": {"$ne": ("a",)}}, tagged()) == {"-", "b", "ab", "abc"}
    assert selected({"tags": {"$in": [["a"], frozenset("ab"), []]}}, tagged()) == {"-", "a", "ab"}
    assert selected({"tags": {"$nin": [["a"], ["x"]]}}, tagged()) == {"-", "b", "ab", "abc"}
    assert selected({"tags": {"$in": []}}, tagged()) == set()
    assert selected({"tags": {"$exists": True}}, tagged()) == {"-", "a", "b", "ab", "abc"}
    assert selected({"tags": {"$exists": False}}, tagged()) == set()


@pytest.mark.parametrize(
    "where",
    [
        {"tags": "a"},
        {"tags": {"$eq": "a"}},
        {"tags": {"$ne": None}},
        {"tags": {"$in": ["a"]}},
        {"tags": {"$nin": "a"}},
        {"tags": {"a": 1}},
    ],
)
def test_a_lone_tag_is_sent_to_contains(where):
    advice = refused(where)
    assert '{"tags": {"$contains": "a"}}' in advice or "expected a list" in advice


@pytest.mark.parametrize("name", ["$gt", "$gte", "$lt", "$lte", "$startswith"])
def test_tags_have_no_order(name):
    assert "of tags: expected one of" in refused({"tags": {name: "a"}})


def test_a_tag_is_a_text():
    assert "Invalid item of tags: expected text" in refused({"tags": ["a", 1]})


def test_embedding_compares_with_none_only():
    records = [memory("with", embedding=np.ones(2, np.float32)), memory("without")]
    assert selected({"embedding": None}, records) == {"without"}
    assert selected({"embedding": {"$ne": None}}, records) == {"with"}
    assert selected({"embedding": {"$not": {"$eq": None}}}, records) == {"with"}
    assert selected({"embedding": {"$in": [None]}}, records) == {"without"}
    assert selected({"embedding": {"$nin": [None, None]}}, records) == {"with"}
    assert selected({"embedding": {"$in": []}}, records) == set()
    assert selected({"embedding": {"$exists": True}}, records) == {"with", "without"}
    assert "search()" in refused({"embedding": [1.0, 2.0]})
    assert "search()" in refused({"embedding": {"$in": [None, 1]}})
    assert "of embedding: expected one of" in refused({"embedding": {"$gt": "x"}})


def test_composite_compares_with_none_only():
    records = [assembly("with", composite=np.ones(2, np.float32)), assembly("without")]
    assert selected({"composite": None}, records) == {"without"}
    assert selected({"composite": {"$ne": None}}, records) == {"with"}
    assert "search()" in refused({"composite": 1}, "assembly")


def test_topics_are_a_list():
    records = [assembly("ab", topics=("a", "b")), assembly("ba", topics=("b", "a")), assembly("-")]
    assert selected({"topics": ["a", "b"]}, records) == {"ab"}
    assert selected({"topics": []}, records) == {"-"}
    assert selected({"topics": {"$contains": "a"}}, records) == {"ab", "ba"}
    assert selected({"topics": {"$in": [("b", "a"), []]}}, records) == {"ba", "-"}
    assert "$contains" in refused({"topics": "a"}, "assembly")
    assert "expected text" in refused({"topics": {"$contains": 1}}, "assembly")
    assert "of topics: expected one of" in refused({"topics": {"$gt": ["a"]}}, "assembly")


def test_fields_of_an_assembly():
    records = [
        assembly("one", name="N", description="D", revision=3, member_count=2, tags=frozenset("a"), metadata={"k": 1}),
        assembly("two", created_at=T0 + HOUR, updated_at=T0 + HOUR),
    ]
    for where in (
        {"id": "one"},
        {"name": {"$startswith": "N"}},
        {"description": "D"},
        {"revision": {"$gte": 3}},
        {"member_count": 2},
        {"member_count": {"$gt": 1.5}},
        {"member_count": {"$nin": [0]}},
        {"tags": {"$contains": "a"}},
        {"metadata.k": 1},
        {"created_at": T0},
        {"updated_at": {"$lt": T0 + HOUR}},
    ):
        assert selected(where, records) == {"one"}


def test_tags_are_found_although_the_outer_statement_joins_them_too():
    joined = tables.memory.join(tables.memory_tag).join(tables.tag)
    node = parse({"tags": ["a", "b"], "embedding": None}, "memory")
    connection = open_file()
    write(connection, memory("ab", tags=frozenset("ab")), 1)
    rows = connection.execute(select(tables.tag.c.name).select_from(joined).where(condition(node, "memory"))).scalars()
    assert set(rows) == {"a", "b"}
    connection.close()
    connection.engine.dispose()


# Limits


def deep(levels: int, *, join: str) -> dict[str, object]:
    where: dict[str, object] = {"id": {"$ne": "x"}}
    for _ in range(levels - 1):
        where = {"$not": where} if join == "$not" else {join: [where, {"id": "y"}]}
    return where


@pytest.mark.parametrize("join", ["$and", "$or", "$not"])
def test_twenty_levels_are_taken_and_twenty_one_refused(join):
    selected(deep(20, join=join), [memory("a")])
    assert "at most 20 levels" in refused(deep(21, join=join))


def test_levels_inside_operands_and_under_a_field_count():
    value: list[object] = []
    tests: dict[str, object] = {"$gt": 1}
    for _ in range(18):
        value, tests = [value], {"$not": tests}
    selected({"metadata.v": value}, [memory("a")])
    selected({"metadata.v": {"$not": tests}}, [memory("a")])
    assert "levels" in refused({"metadata.v": [value]})
    assert "levels" in refused({"metadata.v": {"$not": {"$not": tests}}})


def test_a_filter_that_holds_itself_is_refused():
    where: dict[str, object] = {}
    where["$and"] = [where]
    assert "levels" in refused(where)


THOUSANDS: dict[str, dict[str, object]] = {
    "or": {"$or": [{"metadata.v": n} for n in range(MAX_OPERANDS)]},
    "and": {"$and": [{"metadata.v": {"$ne": n}} for n in range(MAX_OPERANDS)]},
    "negated or": {"$not": {"$or": [{"content": {"$gt": f"{n}"}} for n in range(MAX_OPERANDS)]}},
    "in": {"metadata.v": {"$in": list(range(MAX_OPERANDS))}},
    "nin": {"metadata.v": {"$nin": [f"{n}" for n in range(MAX_OPERANDS)]}},
    "deep in": {"metadata.v": {"$in": [[n] for n in range(MAX_OPERANDS // 2)]}},
    "list": {"metadata.v": list(range(MAX_OPERANDS - 1))},
    "object": {"metadata.v": {"$eq": {f"k{n}": n for n in range(MAX_OPERANDS - 1)}}},
    "negated object": {"metadata.v": {"$ne": {f"k{n}": [] for n in range(MAX_OPERANDS - 1)}}},
    "tag": {"$or": [{"tags": {"$contains": f"{n}"}} for n in range(MAX_OPERANDS)]},
    "tags": {"tags": [f"{n}" for n in range(MAX_OPERANDS)]},
    "sets of tags": {"tags": {"$in": [[f"{n}"] for n in range(MAX_OPERANDS)]}},
    "members": {"$and": [{"metadata.v": {"$contains": f"{n}"}} for n in range(MAX_OPERANDS)]},
}


@pytest.mark.parametrize("shape", THOUSANDS)
def test_a_thousand_operands_of_any_shape_are_answered(shape):
    records = [
        *noted(a=7, b="7", c=[7], d=list(range(MAX_OPERANDS - 1))),
        *noted(e={f"k{n}": n for n in range(MAX_OPERANDS - 1)})[1:],
        memory("f", tags=frozenset({"7"}), content="z"),
    ]
    assert selected(THOUSANDS[shape], records) or shape in ("negated or", "deep in", "members", "tags")
    more = {"$and": [THOUSANDS[shape], {"id": "x"}, {"id": "x"}, *[{"id": "x"}] * 500]}
    assert "at most 1,000 operands" in refused(more)


@pytest.mark.parametrize("width", [2, 3, 16, 17, 49])
@pytest.mark.parametrize("place", ["first", "last", "middle"])
def test_wide_and_deep_filters_stay_within_the_limits_of_the_parser(width, place):
    where: dict[str, object] = {"$or": [{"metadata.v": {"$contains": "x"}}, {"id": "a"}]}
    for level in range(17):
        leaves: list[dict[str, object]] = [{"metadata.v": {"$in": [n]}} for n in range(width)]
        leaves.insert({"first": 0, "last": width, "middle": width // 2}[place], where)
        where = {("$and", "$or")[level % 2]: leaves}
    selected(where, noted(a=1, b=["x"]))
    selected({"$not": where}, noted(a=1, b=["x"]))


def test_bushy_filters_stay_within_the_limits_of_the_parser():
    where: dict[str, object] = {"metadata.v": {"$contains": "x"}}
    for level in range(9):
        where = {("$and", "$or")[level % 2]: [where, where]}
    for level in range(10):
        where = {("$and", "$or")[(level + 1) % 2]: [{"id": "a"}, where]}
    selected(where, noted(a=1, b=["x"]))


def test_many_empty_filters_are_operands_too():
    assert "operands" in refused({"$or": [{}] * 1001})
    assert "operands" in refused({"$or": [{"metadata.v": {"$in": []}}] * 1001})


def test_parsing_keeps_nothing_of_the_callers():
    value = [1]
    node = parse({"metadata.v": value}, "memory")
    value.append(2)
    assert matches(node, memory("a", metadata={"v": [1]}))


def test_pinned_is_a_boolean_and_no_number() -> None:
    records = [memory("a", pinned=True), memory("b")]
    assert selected({"pinned": True}, records) == selected({"pinned": {"$gt": False}}, records) == {"a"}
    assert selected({"pinned": {"$ne": True}}, records) == selected({"pinned": {"$in": [False]}}, records) == {"b"}
    assert "expected True or False" in refused({"pinned": 1})
    assert "expected True or False" in refused({"pinned": {"$gte": 0}})
