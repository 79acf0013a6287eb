"""A handle of one namespace reaches nothing outside it: every verb, with every argument, against another tenant.

The verbs and their parameters are read from the API. A verb with a parameter that has no attack values below fails the
test, so a new verb or argument must be added here.
"""

import contextlib
import dataclasses
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore.api.namespace import SessionNamespace, StoreNamespace, Transaction
from memstore.database.sqlite import sqlite3
from memstore.testing import HashEmbedder

MARKER = "belongs to tenant A"
VICTIM, INTRUDER = ("a",), ("b",)
OTHERS = ((), ("a",), ("a", "inner"), ("bb",))
T0 = datetime(2024, 1, 1, tzinfo=UTC)
DIMENSION = 8
SECRET_VECTOR = np.linspace(0.1, 0.9, DIMENSION, dtype=np.float32)

ALWAYS = {"memories.update_many": {"importance": 0.2}, "assemblies.update_many": {"name": "x"}}
"""Arguments without which a verb does nothing."""

INHERITED = {"dimension", "metric", "curvature"}
"""Attributes of `Store` that concern the whole file; `check`, `backup` and the like are verbs of `Store` alone."""


async def fill(scope: SessionNamespace, marker: str, vector: object) -> None:
    """Records, a trash, a history and a merge of one tenant; the ids are the same for every tenant."""
    for id in ("m1", "m2", "m3", "m4", "gone", f"only-{marker[-1]}"):
        await scope.memories.add(
            f"{id} {marker}", id=id, embedding=vector, tags={marker, "shared"}, metadata={"k": marker}, created_at=T0
        )
    for id in ("g1", "g2", "g3", "g4"):
        await scope.assemblies.add(id, name=marker, description=marker, topics=[marker], tags={marker}, members=["m1"])
    await scope.memories.update("m1", metadata={"k": f"{marker} 2"})
    await scope.memories.delete("gone")
    await scope.memories.forget(await scope.memories.plan_forget(memstore.ForgetPolicy(where={"id": "m4"})))
    await scope.assemblies.forget(await scope.assemblies.plan_forget(memstore.AssemblyForgetPolicy(where={"id": "g4"})))
    await scope.assemblies.merge(["g1", "g2"], into="merged", reason=marker)


@dataclasses.dataclass
class Loot:
    """What a handle of the victim returned, which the intruder passes to its own verbs."""

    values: Mapping[str, list[Any]]


async def loot(scope: StoreNamespace, intruder: StoreNamespace) -> Loot:
    mine = await intruder.memories.history("m1")
    my_plans = [
        await intruder.memories.plan_forget(memstore.ForgetPolicy(where={"id": "m2"})),
        await intruder.assemblies.plan_forget(memstore.AssemblyForgetPolicy(where={"id": "g3"})),
    ]
    changes = [change for id in ("m1", "gone", "only-A") for change in await scope.memories.history(id)]
    plan = await scope.memories.plan_forget(memstore.ForgetPolicy(older_than=1))
    assembly_plan = await scope.assemblies.plan_forget(memstore.AssemblyForgetPolicy(older_than=0))
    suggestions = await scope.assemblies.suggest(0.5, min_size=2)
    merge = (await scope.assemblies.get_merged("g1")).merge
    page = await scope.memories.page(limit=1)
    ids: list[Any] = [
        ["m1", "only-A"],
        ["m1", "m2"],
        ["m4"],
        ["g3", "merged"],
        ["g4"],
        [(VICTIM, "m1"), (VICTIM, "only-A")],
        [((), "m1")],
        [(("bb",), "m1")],
    ]
    items = [[{"id": id, "content": "x", "namespace": space}] for id in ("m1", "new") for space in OTHERS]
    items += [[{"id": "new", "content": "x"}], [{"id": "new"}]]
    return Loot(
        {
            "id": ["only-A", "m1", "g1", "merged"],
            "ids": ids,
            "memory_id": ["only-A", "m1"],
            "into": ["merged", "g3"],
            "members": [["only-A"]],
            "items": items,
            "namespace": [*OTHERS, ("b", "..", "a")],
            "prefix": [*OTHERS, ("..", "a"), ("*",), ("", "a"), None],
            "suffix": [("inner",), None],
            "parts": ["..", "a", "/a", "../a", ""],
            "depth": [0, 1, 10],
            "offset": [0, 1],
            "recursive": [True, False],
            "query": [SECRET_VECTOR, MARKER],
            "queries": [[SECRET_VECTOR]],
            "embedding": [None],
            "tags": [{MARKER}, {"shared"}],
            "tag": [MARKER, "shared"],
            "old": [MARKER, "shared"],
            "new": ["shared", "elsewhere"],
            "where": [{"metadata.k": MARKER}, {"content": {"$contains": MARKER}}, {"tags": {"$contains": MARKER}}],
            "order": ["-content", "id"],
            "as_of": [datetime.now(UTC), T0],
            "after": [page.next],
            "change": [*mine, *changes, *(dataclasses.replace(change, namespace=INTRUDER) for change in changes)],
            "plan": [
                *my_plans,
                *(p for q in (plan, assembly_plan) for p in (q, dataclasses.replace(q, namespace=INTRUDER))),
            ],
            "merge": [merge, merge.id, "merged", dataclasses.replace(merge, namespace=INTRUDER)],
            "suggestions": [suggestions, list(suggestions.groups)],
            "policy": [memstore.ForgetPolicy(older_than=0), memstore.AssemblyForgetPolicy(older_than=0)],
            "boost": [memstore.AssemblyBoost(threshold=-1, limit=100)],
            "older_than": [0],
            "level": [0.5],
            "threshold": [-1.0, 0.5],
            "similarity": [1.0],
            "min_score": [-1.0],
            "min_size": [2],
            "max_size": [50],
            "limit": [1, 1_000],
            "before": [1, 10, 1_000_000, None],
            "chunk": [1],
            "metadata": [{"k": "x"}],
            "metadata_patch": [{"k": "x"}],
            "content": ["x"],
            "name": ["x"],
            "description": ["x"],
            "topics": [["x"]],
            "importance": [0.1],
            "created_at": [T0],
            "updated_at": [T0],
            "accessed_at": [T0],
            "access_count": [1],
            "expires_at": [T0, datetime.now(UTC) + timedelta(days=1)],
            "ttl": [1_000],
            "pinned": [True],
            "activation_level": [0.5],
            "activated_at": [T0],
            "activation_count": [1],
            "on_duplicate": ["skip", "replace"],
            "upsert": [True],
            "on_progress": [lambda *_: None],
            "actor": ["intruder"],
            "reason": ["because"],
            "embeddings": [True, False],
        }
    )


def verbs(handle: SessionNamespace) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions of the handle and of its nouns, by their names."""
    nouns = {"": handle, "memories.": handle.memories, "assemblies.": handle.assemblies, "tags.": handle.tags}
    for prefix, noun in nouns.items():
        for name in sorted(set(dir(noun)) - INHERITED):
            if not name.startswith("_") and callable(function := getattr(noun, name)):
                yield prefix + name, function


def calls(name: str, function: Callable[..., Any], values: Mapping[str, list[Any]]) -> Iterator[tuple[list, dict]]:
    """The arguments of calls: the required parameters in all combinations, and each other parameter beside them."""
    parameters = inspect.signature(function).parameters
    missing = sorted(parameters.keys() - values.keys() - {"changes"})
    assert not missing, f"{name} has parameters without attack values: {missing}. Add them to Loot."
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()):
        yield from (([part], {}) for part in values["parts"])
        yield ["..", "a"], {}
        return
    required = [p.name for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    optional = [p.name for p in parameters.values() if p.name not in required and p.kind is not p.VAR_KEYWORD]
    for combination in itertools.product(*(values[parameter] for parameter in required)):
        base = {**dict(zip(required, combination, strict=True)), **ALWAYS.get(name, {})}
        yield [], base
        for parameter in optional:
            for value in values[parameter]:
                yield [], {**base, parameter: value}
                if "recursive" in optional and parameter in ("where", "ids", "tags"):
                    yield [], {**base, parameter: value, "recursive": True}


async def result_of(function: Callable[..., Any], arguments: list[Any], named: dict[str, Any]) -> object:
    """What the call returns, with everything that it lists."""
    result = function(*arguments, **named)
    if inspect.isawaitable(result):
        return await result
    if isinstance(result, AsyncIterator):
        return [item async for item in result]
    if isinstance(result, AbstractAsyncContextManager):
        async with result as inner:
            return inner
    return result


def check_result(value: object, call: str, *, echo: bool) -> None:
    """Nothing in a result is of another namespace than the intruder's, or contains a text or a vector of the victim.

    With *echo*, the caller passed the text of the victim itself.
    """
    check_part = partial(check_result, call=call, echo=echo)
    if isinstance(value, str):
        assert echo or MARKER not in value, call
    elif isinstance(value, np.ndarray):
        assert value.shape[-1:] != SECRET_VECTOR.shape or not (value == SECRET_VECTOR).all(axis=-1).any(), call
    elif isinstance(value, Mapping):
        for pair in value.items():
            check_part(pair)
    elif isinstance(value, SessionNamespace):
        assert value._namespace[:1] == INTRUDER, call
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            check_part(item)
    elif dataclasses.is_dataclass(value):
        namespace = getattr(value, "namespace", INTRUDER)
        assert namespace[:1] == INTRUDER, call
        for field in dataclasses.fields(value):
            check_part(getattr(value, field.name, None))


def foreign_rows(base: sqlite3.Connection) -> list[object]:
    """Every row of the records that are not of the intruder."""
    inside = "SELECT pk FROM namespace WHERE path LIKE 'b/%'"
    rows: list[object] = []
    for table in ("memory", "assembly", "tag", "tombstone"):
        rows += base.execute(f"SELECT * FROM {table} WHERE namespace_pk NOT IN ({inside}) ORDER BY pk").fetchall()
    for kind in ("memory", "assembly"):
        owners = f"SELECT pk FROM {kind} WHERE namespace_pk NOT IN ({inside})"
        for table in (f"{kind}_vector", f"{kind}_tag"):
            rows += sorted(base.execute(f"SELECT * FROM {table} WHERE {kind}_pk IN ({owners})").fetchall())
    owners = f"SELECT pk FROM assembly WHERE namespace_pk NOT IN ({inside})"
    return rows + sorted(base.execute(f"SELECT * FROM assembly_member WHERE assembly_pk IN ({owners})").fetchall())


class _RollbackError(Exception):
    """Rolls the transaction of one attack back."""


@pytest.fixture
async def store(path: Path) -> AsyncIterator[memstore.Store]:
    async with memstore.open(path, embedder=HashEmbedder(DIMENSION), history="full") as store:
        for namespace in OTHERS:
            await fill(store.namespace(*namespace), MARKER, SECRET_VECTOR)
        for namespace in (INTRUDER, ("b", "inner")):
            await fill(store.namespace(*namespace), "tenant B", -SECRET_VECTOR)
        yield store


def names(handle_type: type[SessionNamespace]) -> list[str]:
    nouns = {
        "": handle_type,
        "memories.": memstore.Memories,
        "assemblies.": memstore.Assemblies,
        "tags.": memstore.Tags,
    }
    return [prefix + n for prefix, noun in nouns.items() for n in sorted(dir(noun)) if not n.startswith("_")]


@pytest.mark.parametrize("verb", [name for name in names(Transaction) if name.rpartition(".")[2] not in INHERITED])
async def test_no_argument_of_a_verb_reaches_another_tenant(verb: str, store: memstore.Store) -> None:
    values = (await loot(store.namespace(*VICTIM), store.namespace(*INTRUDER))).values
    successes, messages = 0, []
    async with store.transaction() as tx:
        base = store._database._writer.thread.base
        before = foreign_rows(base)
        function = dict(verbs(tx.namespace(*INTRUDER))).get(verb)
        if function is None:
            return  # a noun, not a verb
        for arguments, named in calls(verb, function, values):
            call = f"{verb}(*{arguments!r}, **{named!r})"[:1_000]
            try:
                async with tx.transaction():
                    check_result(await result_of(function, arguments, named), call, echo=MARKER in call)
                    assert foreign_rows(base) == before, call
                    successes += 1
                    raise _RollbackError  # noqa: TRY301 - undoes the attack
            except _RollbackError:
                pass
            except memstore.MemstoreError as error:
                messages.append((call, str(error)))
    assert foreign_rows(base) == before
    assert not [call for call, message in messages if MARKER in message and MARKER not in call]
    assert successes, "every call raised: the attack values are too weak"


async def test_the_verbs_of_a_store_reach_no_other_tenant(store: memstore.Store) -> None:
    intruder = store.namespace(*INTRUDER)
    shared = {name for name, _ in verbs(store.namespace(*INTRUDER))} - set(names(Transaction))
    values = (await loot(store.namespace(*VICTIM), store.namespace(*INTRUDER))).values
    base = store._database._writer.thread.base
    before = foreign_rows(base)
    for verb, function in verbs(intruder):
        if verb in shared or verb in {"transaction", "namespace"}:
            for arguments, named in calls(verb, function, values):
                with contextlib.suppress(memstore.MemstoreError):
                    check_result(await result_of(function, arguments, named), verb, echo=MARKER in repr(named))
                assert foreign_rows(base) == before, (verb, named)
