"""A vector that is changed where it is writes one line of the log, and looks for assemblies only if it has any."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = (
    "CREATE TRIGGER tr_memory_vector_update AFTER UPDATE OF memory_pk, space_pk, vector ON memory_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.memory_pk); INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = OLD.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = NEW.memory_pk); END",
    "CREATE TRIGGER tr_assembly_vector_update AFTER UPDATE OF assembly_pk, space_pk, vector ON assembly_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.assembly_pk); INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.assembly_pk); END",
)

AFTER = (
    "CREATE TRIGGER tr_memory_vector_changed AFTER UPDATE OF vector ON memory_vector WHEN NEW.memory_pk IS OLD.memory_pk AND NEW.space_pk IS OLD.space_pk BEGIN INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.memory_pk); END",
    "CREATE TRIGGER tr_memory_vector_moved AFTER UPDATE OF memory_pk, space_pk ON memory_vector WHEN NOT (NEW.memory_pk IS OLD.memory_pk AND NEW.space_pk IS OLD.space_pk) BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.memory_pk); INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = OLD.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = NEW.memory_pk); END",
    "CREATE TRIGGER tr_assembly_vector_changed AFTER UPDATE OF vector ON assembly_vector WHEN NEW.assembly_pk IS OLD.assembly_pk AND NEW.space_pk IS OLD.space_pk BEGIN INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.assembly_pk); END",
    "CREATE TRIGGER tr_assembly_vector_moved AFTER UPDATE OF assembly_pk, space_pk ON assembly_vector WHEN NOT (NEW.assembly_pk IS OLD.assembly_pk AND NEW.space_pk IS OLD.space_pk) BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.assembly_pk); INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.assembly_pk); END",
    "CREATE TRIGGER tr_memory_vector_owned AFTER UPDATE OF vector ON memory_vector WHEN EXISTS (SELECT 1 FROM assembly_member WHERE memory_pk = NEW.memory_pk) BEGIN UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = NEW.memory_pk); END",
)


def upgrade() -> None:
    """Replace the triggers."""
    _replace(BEFORE, AFTER)


def downgrade() -> None:
    """Put back those that were."""
    _replace(AFTER, BEFORE)


def _replace(these: tuple[str, ...], those: tuple[str, ...]) -> None:
    for trigger in these:
        op.execute(f"DROP TRIGGER IF EXISTS {trigger.split()[2]}")
    for trigger in those:
        op.execute(trigger)
