"""The table of record fields against everything that spells fields out: dataclasses, columns, constructors, verbs."""

import inspect
from dataclasses import MISSING, Field, fields
from typing import Any

import pytest

from memstore.api.assemblies import Assemblies
from memstore.api.memories import Memories
from memstore.models import records
from memstore.models.fields import RECORD_FIELDS, TIMES, RecordField, orders
from memstore.models.records import Assembly, Memory, RecordKind
from memstore.repository.record_types import BY_KIND
from memstore.schema.types import JsonText, UtcTime

KINDS: list[RecordKind] = ["memory", "assembly"]
RECORDS: dict[RecordKind, type[Any]] = {"memory": Memory, "assembly": Assembly}


def by_name(kind: RecordKind) -> dict[str, RecordField]:
    return {field.name: field for field in RECORD_FIELDS[kind]}


def default_of(field: "Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_has_the_fields_of_the_record(kind: RecordKind) -> None:
    assert {"namespace", *by_name(kind)} == {field.name for field in fields(RECORDS[kind])}


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_has_every_column_of_the_row(kind: RecordKind) -> None:
    columns = [field.column for field in RECORD_FIELDS[kind] if field.column is not None]
    assert sorted(columns) == sorted(BY_KIND[kind].columns)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_and_options_of_fields_are_those_of_their_columns(kind: RecordKind) -> None:
    for field in RECORD_FIELDS[kind]:
        if field.column is not None:
            column = BY_KIND[kind].table.c[field.column]
            assert isinstance(column.type, UtcTime) == (field.kind == "time"), field.name
            assert isinstance(column.type, JsonText) == (field.kind == "json"), field.name
            assert column.nullable == field.optional, field.name


@pytest.mark.parametrize("kind", KINDS)
def test_only_an_optional_field_is_none_by_default(kind: RecordKind) -> None:
    for field in fields(RECORDS[kind]):
        if field.name != "namespace":
            assert (default_of(field) is None) == by_name(kind)[field.name].optional, field.name


@pytest.mark.parametrize(("kind", "verbs"), [("memory", Memories), ("assembly", Assemblies)])
def test_the_verbs_take_every_field_that_the_store_does_not_compute(kind: RecordKind, verbs: type[Any]) -> None:
    parameters = set(inspect.signature(verbs.add).parameters) - {"self", "ttl", "members", "on_duplicate"}
    assert parameters == {field.name for field in RECORD_FIELDS[kind] if not field.computed}


def test_the_fast_constructor_takes_the_fields_of_a_memory_in_order() -> None:
    names = [field.name for field in fields(Memory)]
    assert list(inspect.signature(records.memory).parameters) == names
    values = {name: object() for name in names}
    memory = records.memory(*values.values())  # type: ignore[arg-type]
    assert {name: getattr(memory, name) for name in names} == values


def test_orders_and_times_are_fields() -> None:
    for kind in KINDS:
        assert orders(kind) <= by_name(kind).keys()
    assert {field.name for kind in KINDS for field in RECORD_FIELDS[kind] if field.name.endswith("_at")} == TIMES
