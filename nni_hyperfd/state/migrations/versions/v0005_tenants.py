"""Format 5: tasks may belong to tenants, and a closed task may wait for the encoder to learn from it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the tables and columns; whatever is closed has been learned from."""
    integer = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "tenants",
        sa.Column("id", integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("open_tasks", integer),
        sa.Column("tasks_a_day", integer),
        sa.Column("created", sa.DateTime, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", integer, primary_key=True),
        sa.Column("tenant_id", integer, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("sha256", sa.String, nullable=False, unique=True),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("expires", sa.DateTime, nullable=False),
        sa.Column("revoked", sa.DateTime),
    )
    op.create_index("ix_tokens_tenant_id", "tokens", ["tenant_id"])
    # SQLite's constraint has no name of its own; PostgreSQL's has this one.
    named = "tasks_experiment_key"
    with op.batch_alter_table("tasks", naming_convention={"uq": "%(table_name)s_%(column_0_name)s_key"}) as tasks:
        tasks.drop_constraint(named, type_="unique")
        tasks.add_column(sa.Column("tenant_id", integer))
        tasks.add_column(sa.Column("learned", sa.DateTime))
        tasks.add_column(sa.Column("holder", sa.String))
        tasks.create_foreign_key("tasks_tenant_id_fkey", "tenants", ["tenant_id"], ["id"])
    op.create_index("ix_tasks_tenant_id", "tasks", ["tenant_id"])
    op.create_index("ix_tasks_learned", "tasks", ["learned", "closed"])
    op.create_index("ix_tasks_experiment", "tasks", [sa.text("coalesce(tenant_id, 0)"), "experiment"], unique=True)
    tasks_table = sa.table("tasks", sa.column("closed", sa.DateTime), sa.column("learned", sa.DateTime))
    op.get_bind().execute(sa.update(tasks_table).values(learned=tasks_table.c.closed))
