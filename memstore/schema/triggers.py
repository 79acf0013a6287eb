"""The triggers of a memstore file. They keep the invariants of `memstore.schema.tables`, also under raw SQL."""


def _log(space: str, pk: str) -> str:
    return f"INSERT INTO change_log (space_pk, pk) VALUES ({space}, {pk});"  # noqa: S608


def _log_all(kind: str, row: str) -> str:
    return (
        "INSERT INTO change_log (space_pk, pk) "  # noqa: S608 - table names of ours
        f"SELECT space_pk, {kind}_pk FROM {kind}_vector WHERE {kind}_pk = {row}.pk;"
    )


def _revise_owners(row: str) -> str:
    return (
        "UPDATE assembly SET revision = revision + 1 WHERE pk IN "  # noqa: S608 - table names of ours
        f"(SELECT assembly_pk FROM assembly_member WHERE memory_pk = {row}.memory_pk);"
    )


def _revise(row: str) -> str:
    return f"UPDATE assembly SET revision = revision + 1 WHERE pk = {row}.assembly_pk;"  # noqa: S608


def _forget_checksum(table: str, key: str) -> str:
    return f"UPDATE {table} SET checksum = NULL WHERE {key} = NEW.{key} AND space_pk = NEW.space_pk;"  # noqa: S608


def _vector_triggers(kind: str) -> dict[str, str]:
    table, key = f"{kind}_vector", f"{kind}_pk"
    owners = {row: " " + _revise_owners(row) if kind == "memory" else "" for row in ("NEW", "OLD")}
    stays = f"NEW.{key} IS OLD.{key} AND NEW.space_pk IS OLD.space_pk"
    return {
        f"tr_{table}_insert": f"AFTER INSERT ON {table} BEGIN {_log('NEW.space_pk', f'NEW.{key}')}{owners['NEW']} END",
        f"tr_{table}_delete": f"AFTER DELETE ON {table} BEGIN {_log('OLD.space_pk', f'OLD.{key}')}{owners['OLD']} END",
        # An update in place, as by the verbs, is logged once, and owners are searched only if there are any:
        # that saves a third of the cost of the statement.
        f"tr_{table}_changed": f"AFTER UPDATE OF vector ON {table} WHEN {stays} BEGIN "
        f"{_log('NEW.space_pk', f'NEW.{key}')} END",
        f"tr_{table}_moved": f"AFTER UPDATE OF {key}, space_pk ON {table} WHEN NOT ({stays}) BEGIN "
        f"{_log('OLD.space_pk', f'OLD.{key}')} {_log('NEW.space_pk', f'NEW.{key}')}{owners['OLD']}{owners['NEW']} END",
        f"tr_{table}_checksum": f"AFTER UPDATE OF vector ON {table} "
        "WHEN NEW.vector IS NOT OLD.vector AND NEW.checksum IS OLD.checksum BEGIN "
        f"{_forget_checksum(table, key)} END",
        # With foreign keys off, as in other tools, a deleted owner leaves its vector behind: the index must not.
        f"tr_{kind}_delete": f"AFTER DELETE ON {kind} BEGIN {_log_all(kind, 'OLD')} END",
    }


_OWNED = "EXISTS (SELECT 1 FROM assembly_member WHERE memory_pk = NEW.memory_pk)"
_REVISED = "INSERT INTO change_log (space_pk, pk) SELECT pk, NEW.pk FROM vector_space WHERE kind = 'assembly';"

TRIGGERS: dict[str, str] = {
    name: f"CREATE TRIGGER {name} {body}"
    for name, body in {
        **_vector_triggers("memory"),
        **_vector_triggers("assembly"),
        "tr_memory_vector_owned": f"AFTER UPDATE OF vector ON memory_vector WHEN {_OWNED} BEGIN "
        + _revise_owners("NEW")
        + " END",
        "tr_memory_scope": "AFTER UPDATE OF namespace_pk, expires_at ON memory BEGIN "
        + _log_all("memory", "NEW")
        + " END",
        "tr_assembly_scope": "AFTER UPDATE OF namespace_pk ON assembly BEGIN " + _log_all("assembly", "NEW") + " END",
        "tr_assembly_insert": f"AFTER INSERT ON assembly BEGIN {_REVISED} END",
        "tr_assembly_revision": f"AFTER UPDATE OF revision ON assembly BEGIN {_REVISED} END",
        "tr_assembly_member_insert": f"AFTER INSERT ON assembly_member BEGIN {_revise('NEW')} END",
        "tr_assembly_member_delete": f"AFTER DELETE ON assembly_member BEGIN {_revise('OLD')} END",
        "tr_assembly_member_update": f"AFTER UPDATE ON assembly_member BEGIN {_revise('OLD')} {_revise('NEW')} END",
    }.items()
}
"""The statement of each trigger, by name."""
