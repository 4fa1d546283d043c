"""Format 2: weights that no task can need are dropped, so nothing refers to blobs any more.

The maps between extractor versions (eq. 4) are no longer stored: they follow from the versions' descriptions of the
platform's own data sets. All weights of a format 1 are still there, so these are made when they are first needed.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Take the references away."""
    op.drop_table("transformations")
    with op.batch_alter_table("extractors", copy_from=_extractors(), recreate="always") as extractors:
        extractors.add_column(sa.Column("described", sa.LargeBinary))
    with op.batch_alter_table("rankers", copy_from=_rankers(), recreate="always"):
        pass
    op.create_index("ix_rankers_space_signature", "rankers", ["space_signature"])


def _extractors() -> sa.Table:
    return sa.Table(
        "extractors",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("parent_id", sa.Integer, sa.ForeignKey("extractors.id")),
        sa.Column("head", sa.Boolean, nullable=False),
        sa.Column("weights", sa.String),
        sa.Column("importance", sa.String),
        sa.Column("created", sa.DateTime, nullable=False),
    )


def _rankers() -> sa.Table:
    return sa.Table(
        "rankers",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("space_signature", sa.String, sa.ForeignKey("spaces.signature"), nullable=False),
        sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), nullable=False),
        sa.Column("extractor_id", sa.Integer, sa.ForeignKey("extractors.id"), nullable=False),
        sa.Column("weights", sa.String, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
    )
