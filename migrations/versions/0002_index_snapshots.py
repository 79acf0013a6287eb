"""Snapshots of the search graph, how the index was last asked to be, and indexes for filters by time and importance."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

INDEXES = (("assembly", "updated_at"), ("memory", "updated_at"), ("memory", "importance"))


def upgrade() -> None:
    """Add them; the indexes are filled from the rows."""
    op.create_table(
        "index_snapshot",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("space_pk", KEY, nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("seq", KEY, nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("complete", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("json_type(parameters) = 'object'", name=op.f("ck_index_snapshot_parameters")),
        sa.CheckConstraint("complete IN (0, 1)", name=op.f("ck_index_snapshot_complete")),
        sa.ForeignKeyConstraint(
            ["space_pk"], ["vector_space.pk"], name=op.f("fk_index_snapshot_space_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_index_snapshot")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "index_chunk",
        sa.Column("snapshot_pk", KEY, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["snapshot_pk"], ["index_snapshot.pk"], name=op.f("fk_index_chunk_snapshot_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("snapshot_pk", "number", name=op.f("pk_index_chunk")),
    )
    op.add_column("store_meta", sa.Column("index_options", sa.Text(), nullable=True))
    for table, column in INDEXES:
        op.create_index(op.f(f"ix_{table}_namespace_pk_{column}"), table, ["namespace_pk", column], unique=False)


def downgrade() -> None:
    """Remove them: all of it is derived, or a wish that the next open states again."""
    for table, column in INDEXES:
        op.drop_index(op.f(f"ix_{table}_namespace_pk_{column}"), table)
    op.drop_column("store_meta", "index_options")
    op.drop_table("index_chunk")
    op.drop_table("index_snapshot")
