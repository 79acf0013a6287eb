"""The first schema: memories, assemblies, tags, their vectors, and the log the index follows."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

TRIGGERS = (
    "CREATE TRIGGER tr_memory_vector_insert AFTER INSERT ON memory_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = NEW.memory_pk); END",
    "CREATE TRIGGER tr_memory_vector_delete AFTER DELETE ON memory_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = OLD.memory_pk); END",
    "CREATE TRIGGER tr_memory_vector_update AFTER UPDATE OF memory_pk, space_pk, vector ON memory_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.memory_pk); INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = OLD.memory_pk); UPDATE assembly SET revision = revision + 1 WHERE pk IN (SELECT assembly_pk FROM assembly_member WHERE memory_pk = NEW.memory_pk); END",
    "CREATE TRIGGER tr_memory_vector_checksum AFTER UPDATE OF vector ON memory_vector WHEN NEW.vector IS NOT OLD.vector AND NEW.checksum IS OLD.checksum BEGIN UPDATE memory_vector SET checksum = NULL WHERE memory_pk = NEW.memory_pk AND space_pk = NEW.space_pk; END",
    "CREATE TRIGGER tr_memory_delete AFTER DELETE ON memory BEGIN INSERT INTO change_log (space_pk, pk) SELECT space_pk, memory_pk FROM memory_vector WHERE memory_pk = OLD.pk; END",
    "CREATE TRIGGER tr_assembly_vector_insert AFTER INSERT ON assembly_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.assembly_pk); END",
    "CREATE TRIGGER tr_assembly_vector_delete AFTER DELETE ON assembly_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.assembly_pk); END",
    "CREATE TRIGGER tr_assembly_vector_update AFTER UPDATE OF assembly_pk, space_pk, vector ON assembly_vector BEGIN INSERT INTO change_log (space_pk, pk) VALUES (OLD.space_pk, OLD.assembly_pk); INSERT INTO change_log (space_pk, pk) VALUES (NEW.space_pk, NEW.assembly_pk); END",
    "CREATE TRIGGER tr_assembly_vector_checksum AFTER UPDATE OF vector ON assembly_vector WHEN NEW.vector IS NOT OLD.vector AND NEW.checksum IS OLD.checksum BEGIN UPDATE assembly_vector SET checksum = NULL WHERE assembly_pk = NEW.assembly_pk AND space_pk = NEW.space_pk; END",
    "CREATE TRIGGER tr_assembly_delete AFTER DELETE ON assembly BEGIN INSERT INTO change_log (space_pk, pk) SELECT space_pk, assembly_pk FROM assembly_vector WHERE assembly_pk = OLD.pk; END",
    "CREATE TRIGGER tr_memory_scope AFTER UPDATE OF namespace_pk, expires_at ON memory BEGIN INSERT INTO change_log (space_pk, pk) SELECT space_pk, memory_pk FROM memory_vector WHERE memory_pk = NEW.pk; END",
    "CREATE TRIGGER tr_assembly_scope AFTER UPDATE OF namespace_pk ON assembly BEGIN INSERT INTO change_log (space_pk, pk) SELECT space_pk, assembly_pk FROM assembly_vector WHERE assembly_pk = NEW.pk; END",
    "CREATE TRIGGER tr_assembly_insert AFTER INSERT ON assembly BEGIN INSERT INTO change_log (space_pk, pk) SELECT pk, NEW.pk FROM vector_space WHERE kind = 'assembly'; END",
    "CREATE TRIGGER tr_assembly_revision AFTER UPDATE OF revision ON assembly BEGIN INSERT INTO change_log (space_pk, pk) SELECT pk, NEW.pk FROM vector_space WHERE kind = 'assembly'; END",
    "CREATE TRIGGER tr_assembly_member_insert AFTER INSERT ON assembly_member BEGIN UPDATE assembly SET revision = revision + 1 WHERE pk = NEW.assembly_pk; END",
    "CREATE TRIGGER tr_assembly_member_delete AFTER DELETE ON assembly_member BEGIN UPDATE assembly SET revision = revision + 1 WHERE pk = OLD.assembly_pk; END",
    "CREATE TRIGGER tr_assembly_member_update AFTER UPDATE ON assembly_member BEGIN UPDATE assembly SET revision = revision + 1 WHERE pk = OLD.assembly_pk; UPDATE assembly SET revision = revision + 1 WHERE pk = NEW.assembly_pk; END",
)

TABLES = (
    "memory_vector",
    "memory_tag",
    "assembly_vector",
    "assembly_tag",
    "assembly_member",
    "tag",
    "memory",
    "assembly",
    "vector_space",
    "store_meta",
    "namespace",
    "change_log",
)


def upgrade() -> None:
    """Make every table, index and trigger, and name the file."""
    op.create_table(
        "change_log",
        sa.Column("seq", KEY, nullable=False),
        sa.Column("space_pk", KEY, nullable=False),
        sa.Column("pk", KEY, nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_change_log")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "namespace",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_namespace")),
        sa.UniqueConstraint("path", name=op.f("uq_namespace_path")),
    )
    op.create_table(
        "store_meta",
        sa.Column("pk", sa.Integer(), nullable=False),
        sa.Column("store_uuid", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("format", sa.Integer(), nullable=False),
        sa.Column("log_floor", KEY, server_default=sa.text("0"), nullable=False),
        sa.Column("write_token", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("pk = 1", name=op.f("ck_store_meta_one_row")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_store_meta")),
    )
    op.create_table(
        "vector_space",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("embedder", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('memory', 'assembly')", name=op.f("ck_vector_space_kind")),
        sa.CheckConstraint("dimension > 0", name=op.f("ck_vector_space_dimension")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_vector_space")),
        sa.UniqueConstraint("kind", "name", name=op.f("uq_vector_space_kind_name")),
    )
    op.create_table(
        "assembly",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("namespace_pk", KEY, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("topics", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("revision", KEY, server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("json_type(metadata) = 'object'", name=op.f("ck_assembly_metadata")),
        sa.CheckConstraint("json_type(topics) = 'array'", name=op.f("ck_assembly_topics")),
        sa.ForeignKeyConstraint(["namespace_pk"], ["namespace.pk"], name=op.f("fk_assembly_namespace_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_assembly")),
        sa.UniqueConstraint("namespace_pk", "id", name=op.f("uq_assembly_namespace_pk_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_assembly_namespace_pk_created_at"), "assembly", ["namespace_pk", "created_at"], unique=False
    )
    op.create_table(
        "memory",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("namespace_pk", KEY, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("importance", sa.Float(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("accessed_at", sa.BigInteger(), nullable=True),
        sa.Column("access_count", KEY, nullable=False),
        sa.CheckConstraint("json_type(metadata) = 'object'", name=op.f("ck_memory_metadata")),
        sa.CheckConstraint("importance BETWEEN 0 AND 1", name=op.f("ck_memory_importance")),
        sa.ForeignKeyConstraint(["namespace_pk"], ["namespace.pk"], name=op.f("fk_memory_namespace_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_memory")),
        sa.UniqueConstraint("namespace_pk", "id", name=op.f("uq_memory_namespace_pk_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_memory_expires_at", "memory", ["expires_at"], unique=False, sqlite_where=sa.text("expires_at IS NOT NULL")
    )
    op.create_index(op.f("ix_memory_namespace_pk_created_at"), "memory", ["namespace_pk", "created_at"], unique=False)
    op.create_table(
        "tag",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("namespace_pk", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["namespace_pk"], ["namespace.pk"], name=op.f("fk_tag_namespace_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_tag")),
        sa.UniqueConstraint("namespace_pk", "name", name=op.f("uq_tag_namespace_pk_name")),
    )
    op.create_table(
        "assembly_member",
        sa.Column("assembly_pk", KEY, nullable=False),
        sa.Column("memory_pk", KEY, nullable=False),
        sa.ForeignKeyConstraint(
            ["assembly_pk"], ["assembly.pk"], name=op.f("fk_assembly_member_assembly_pk"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["memory_pk"], ["memory.pk"], name=op.f("fk_assembly_member_memory_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("assembly_pk", "memory_pk", name=op.f("pk_assembly_member")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_assembly_member_memory_pk_assembly_pk"), "assembly_member", ["memory_pk", "assembly_pk"], unique=False
    )
    op.create_table(
        "assembly_tag",
        sa.Column("assembly_pk", KEY, nullable=False),
        sa.Column("tag_pk", KEY, nullable=False),
        sa.ForeignKeyConstraint(
            ["assembly_pk"], ["assembly.pk"], name=op.f("fk_assembly_tag_assembly_pk"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tag_pk"], ["tag.pk"], name=op.f("fk_assembly_tag_tag_pk"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("assembly_pk", "tag_pk", name=op.f("pk_assembly_tag")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_assembly_tag_tag_pk_assembly_pk"), "assembly_tag", ["tag_pk", "assembly_pk"], unique=False)
    op.create_table(
        "assembly_vector",
        sa.Column("assembly_pk", KEY, nullable=False),
        sa.Column("space_pk", KEY, nullable=False),
        sa.Column("sum", sa.LargeBinary(), nullable=False),
        sa.Column("length", sa.Float(), nullable=False),
        sa.Column("count", KEY, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("checksum", KEY, nullable=True),
        sa.Column("revision", KEY, nullable=False),
        sa.CheckConstraint(
            "vector IS NULL OR (typeof(vector) = 'blob' AND length(vector) % 4 = 0)",
            name=op.f("ck_assembly_vector_vector"),
        ),
        sa.ForeignKeyConstraint(
            ["assembly_pk"], ["assembly.pk"], name=op.f("fk_assembly_vector_assembly_pk"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["space_pk"], ["vector_space.pk"], name=op.f("fk_assembly_vector_space_pk")),
        sa.PrimaryKeyConstraint("assembly_pk", "space_pk", name=op.f("pk_assembly_vector")),
    )
    op.create_table(
        "memory_tag",
        sa.Column("memory_pk", KEY, nullable=False),
        sa.Column("tag_pk", KEY, nullable=False),
        sa.ForeignKeyConstraint(["memory_pk"], ["memory.pk"], name=op.f("fk_memory_tag_memory_pk"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tag_pk"], ["tag.pk"], name=op.f("fk_memory_tag_tag_pk"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("memory_pk", "tag_pk", name=op.f("pk_memory_tag")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_memory_tag_tag_pk_memory_pk"), "memory_tag", ["tag_pk", "memory_pk"], unique=False)
    op.create_table(
        "memory_vector",
        sa.Column("memory_pk", KEY, nullable=False),
        sa.Column("space_pk", KEY, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("checksum", KEY, nullable=True),
        sa.CheckConstraint("typeof(vector) = 'blob' AND length(vector) % 4 = 0", name=op.f("ck_memory_vector_vector")),
        sa.ForeignKeyConstraint(
            ["memory_pk"], ["memory.pk"], name=op.f("fk_memory_vector_memory_pk"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["space_pk"], ["vector_space.pk"], name=op.f("fk_memory_vector_space_pk")),
        sa.PrimaryKeyConstraint("memory_pk", "space_pk", name=op.f("pk_memory_vector")),
    )
    for trigger in TRIGGERS:
        op.execute(sa.text(trigger))
    row = {"uuid": str(uuid.uuid4()), "epoch": uuid.uuid4().hex}
    insert = sa.text("INSERT INTO store_meta (pk, store_uuid, epoch, format) VALUES (1, :uuid, :epoch, 1)")
    op.get_bind().execute(insert, row)


def downgrade() -> None:
    """Remove everything, but only from a file that holds nothing."""
    held = op.get_bind().execute(sa.text("SELECT EXISTS (SELECT 1 FROM memory) OR EXISTS (SELECT 1 FROM assembly)"))
    if held.scalar_one():
        raise RuntimeError(
            "this file holds memories or assemblies: export them and empty it before a downgrade to base"
        )
    for table in TABLES:
        op.drop_table(table)
