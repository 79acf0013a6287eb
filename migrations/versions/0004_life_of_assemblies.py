"""What records live through: activation, pins, merges and lineage, tombstones, a journal of changes; curved spaces."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

COLUMNS = (
    ("store_meta", "history_options TEXT"),
    ("vector_space", "curvature FLOAT"),
    ("memory", "pinned INTEGER DEFAULT 0 NOT NULL"),
    ("assembly", "activation FLOAT DEFAULT 0 NOT NULL"),
    ("assembly", "activated_at BIGINT"),
    ("assembly", "activation_count INTEGER DEFAULT 0 NOT NULL"),
    ("assembly_vector", "composed_at BIGINT"),
)
INDEXES = (
    ("tombstone", ("namespace_pk", "kind", "id")),
    ("tombstone", ("kind", "at")),
    ("tombstone", ("kind", "record_pk")),
    ("assembly_merge", ("target_pk",)),
    ("assembly_merge", ("namespace_pk", "target_id")),
    ("assembly_merge_source", ("source_pk",)),
)
JOURNAL_INDEXES = (
    ("ix_journal_added", ("kind", "last_pk"), "what = 'added'"),
    ("ix_journal_changed", ("kind", "last_pk"), "what <> 'added'"),
    ("ix_journal_id", ("namespace_pk", "kind", "id"), "id IS NOT NULL"),
)
HELD = (
    ("records that were forgotten or merged", "tombstone"),
    ("merges of assemblies", "assembly_merge"),
    ("pinned memories", "memory WHERE pinned"),
    ("vectors of a space", "vector_space WHERE metric IN ('spherical', 'hyperbolic')"),
)


def upgrade() -> None:
    """Add them. Columns are added where they lie: no table is written anew."""
    for table, column in COLUMNS:
        op.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    op.create_table(
        "tombstone",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("namespace_pk", KEY, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("record_pk", KEY, nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("checksum", KEY, nullable=True),
        sa.CheckConstraint("kind IN ('memory', 'assembly')", name=op.f("ck_tombstone_kind")),
        sa.CheckConstraint("cause IN ('forgotten', 'merged')", name=op.f("ck_tombstone_cause")),
        sa.CheckConstraint("json_type(record) = 'object'", name=op.f("ck_tombstone_record")),
        sa.ForeignKeyConstraint(["namespace_pk"], ["namespace.pk"], name=op.f("fk_tombstone_namespace_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_tombstone")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "assembly_merge",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("namespace_pk", KEY, nullable=False),
        sa.Column("target_pk", KEY, nullable=False),
        sa.Column("target_id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("similarity", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("brought", sa.Text(), nullable=False),
        sa.Column("undone_at", sa.BigInteger(), nullable=True),
        sa.Column("undone_by", sa.Text(), nullable=True),
        sa.Column("undone_reason", sa.Text(), nullable=True),
        sa.CheckConstraint("json_type(brought) = 'object'", name=op.f("ck_assembly_merge_brought")),
        sa.ForeignKeyConstraint(["namespace_pk"], ["namespace.pk"], name=op.f("fk_assembly_merge_namespace_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_assembly_merge")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "assembly_merge_source",
        sa.Column("merge_pk", KEY, nullable=False),
        sa.Column("source_pk", KEY, nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["merge_pk"], ["assembly_merge.pk"], name=op.f("fk_assembly_merge_source_merge_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("merge_pk", "source_pk", name=op.f("pk_assembly_merge_source")),
    )
    op.create_table(
        "journal",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("namespace_pk", KEY, nullable=False),
        sa.Column("first_pk", KEY, nullable=False),
        sa.Column("last_pk", KEY, nullable=False),
        sa.Column("id", sa.Text(), nullable=True),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("at", KEY, nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("undoes", KEY, nullable=True),
        sa.Column("old", sa.Text(), nullable=True),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("checksum", KEY, nullable=True),
        sa.CheckConstraint("kind IN ('memory', 'assembly')", name=op.f("ck_journal_kind")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_journal")),
        sqlite_autoincrement=True,
    )
    for name, columns, where in JOURNAL_INDEXES:
        op.create_index(name, "journal", list(columns), unique=False, sqlite_where=sa.text(where))
    for table, columns in INDEXES:
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns), unique=False)


def downgrade() -> None:
    """Remove them, where nothing would be lost that a caller put there. The journal goes: it is of the past alone."""
    for what, held in HELD:
        if op.get_bind().execute(sa.text(f"SELECT 1 FROM {held} LIMIT 1")).first() is not None:  # noqa: S608 - ours
            raise ValueError(f"this file holds {what}, which revision {down_revision} cannot: end that before")
    for table in ("journal", "assembly_merge_source", "assembly_merge", "tombstone"):
        op.drop_table(table)
    for table, column in reversed(COLUMNS):
        op.execute(f"ALTER TABLE {table} DROP COLUMN {column.split()[0]}")
