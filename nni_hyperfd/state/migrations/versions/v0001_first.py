"""Format 1: the first one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table("blobs", sa.Column("sha256", sa.String, primary_key=True), _column("data", sa.LargeBinary))
    op.create_table(
        "spaces",
        sa.Column("signature", sa.String, primary_key=True),
        _column("kind", sa.String),
        _column("definition", sa.JSON),
    )
    op.create_table(
        "extractors",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("parent_id", sa.Integer, sa.ForeignKey("extractors.id")),
        _column("head", sa.Boolean),
        sa.Column("weights", sa.String, sa.ForeignKey("blobs.sha256")),
        sa.Column("importance", sa.String, sa.ForeignKey("blobs.sha256")),
        _column("created", sa.DateTime),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("experiment", sa.String, nullable=False, unique=True),
        _column("space_signature", sa.String, "spaces.signature"),
        _column("settings", sa.JSON),
        _column("extractor_id", sa.Integer, "extractors.id"),
        sa.Column("meta_feature", sa.JSON),
        sa.Column("num_images", sa.Integer),
        sa.Column("num_boxes", sa.Integer),
        sa.Column("baseline", sa.Double),
        _column("created", sa.DateTime),
        sa.Column("closed", sa.DateTime),
    )
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), nullable=False, index=True),
        sa.Column("parameter_id", sa.Integer),
        _column("phase", sa.String),
        _column("status", sa.String),
        _column("configuration", sa.JSON),
        sa.Column("rank", sa.Integer),
        sa.Column("score", sa.Double),
        sa.Column("performance", sa.Float),
        sa.Column("reason", sa.String),
        sa.Column("started", sa.DateTime),
        sa.Column("ended", sa.DateTime),
        sa.UniqueConstraint("task_id", "parameter_id"),
    )
    op.create_table(
        "rankers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("space_signature", sa.String, sa.ForeignKey("spaces.signature"), nullable=False, index=True),
        _column("task_id", sa.Integer, "tasks.id"),
        _column("extractor_id", sa.Integer, "extractors.id"),
        _column("weights", sa.String, "blobs.sha256"),
        _column("created", sa.DateTime),
    )
    op.create_table(
        "transformations",
        sa.Column("source_id", sa.Integer, sa.ForeignKey("extractors.id"), primary_key=True),
        sa.Column("target_id", sa.Integer, sa.ForeignKey("extractors.id"), primary_key=True),
        _column("weights", sa.String, "blobs.sha256"),
    )
    op.create_table(
        "offline_datasets",
        sa.Column("name", sa.String, primary_key=True),
        _column("features", sa.String, "blobs.sha256"),
    )


def _column(name: str, kind: type[sa.types.TypeEngine[Any]], refers_to: str | None = None) -> sa.Column[Any]:
    keys = [] if refers_to is None else [sa.ForeignKey(refers_to)]
    return sa.Column(name, kind, *keys, nullable=False)
