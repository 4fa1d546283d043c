"""Format 4: the extractor describes every image alone, and owners say what may become of what they send.

Extractors of earlier formats mixed the images of a data set, so no client describes its data by them any more. They are
dropped with all that only they could make: meta-features, and encoders that were trained towards these. Tasks, results
and the platform's own data sets stay. Encoders are learned anew from the results when they are next needed.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns, and begin anew with an initial extractor."""
    op.add_column("tasks", sa.Column("among", sa.Integer))
    op.add_column("tasks", sa.Column("share", sa.Boolean))
    op.add_column("extractors", sa.Column("among", sa.Integer))
    op.add_column("offline_datasets", sa.Column("private", sa.Boolean))
    connection = op.get_bind()
    extractors = _table("extractors", id=sa.Integer, head=sa.Boolean, created=sa.DateTime)
    tasks = _table("tasks", extractor_id=sa.Integer, meta_feature=sa.JSON)
    if connection.scalar(sa.select(sa.func.count()).select_from(extractors)):
        created = datetime.now(timezone.utc).replace(tzinfo=None)
        initial = sa.insert(extractors).values(head=True, created=created).returning(extractors.c.id)
        initial_id = connection.execute(initial).scalar_one()
        connection.execute(sa.update(tasks).values(extractor_id=initial_id, meta_feature=sa.null()))
        connection.execute(sa.delete(extractors).where(extractors.c.id != initial_id))
    connection.execute(sa.delete(_table("encoders")))
    blobs, offline = _table("blobs", sha256=sa.String), _table("offline_datasets", features=sa.String)
    connection.execute(sa.delete(blobs).where(blobs.c.sha256.not_in(sa.select(offline.c.features))))


def _table(name: str, **columns: Any) -> sa.TableClause:
    return sa.table(name, *(sa.column(column, kind) for column, kind in columns.items()))
