"""Format 3: architectures are encoded as graphs, and a task says which of the platform's own data sets it stands for.

Encoders of spaces with architectures were trained on flat vectors; they are dropped, and learned anew from the results
when they are next needed. The other encoders' weights get the names that they have beside a graph network's.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import safetensors.numpy
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_DEFAULTS = {
    "budget": 4,
    "candidates": 200,
    "exploration": 0.5,
    "seed": 0,
    "maximize": True,
    "service": True,
    "preset": "default",
    "replay": "none",
}
_WARM_UP = re.compile(r"warm-up (.*) \((?:hpo|nas|joint) [0-9a-f]{12}\)")


def upgrade() -> None:
    """Rename, convert, and index."""
    connection = op.get_bind()
    op.rename_table("rankers", "encoders")
    op.drop_index("ix_rankers_space_signature", "encoders")
    op.create_index("ix_encoders_space_signature", "encoders", ["space_signature"])
    op.create_index("ix_extractors_head", "extractors", ["head"])
    op.create_index("ix_extractors_weights", "extractors", ["weights"])
    op.add_column("tasks", sa.Column("dataset", sa.String))
    op.create_index("ix_tasks_closed", "tasks", ["space_signature", "closed"], if_not_exists=True)
    op.create_index("ix_tasks_extractor", "tasks", ["closed", "extractor_id"])
    _convert_settings(connection)
    _convert_encoders(connection)


def _convert_settings(connection: sa.Connection) -> None:
    """Settings are complete, and `offline` becomes the name of a data set."""
    tasks = _table("tasks", id=sa.Integer, experiment=sa.String, settings=sa.JSON, dataset=sa.String)
    for row in connection.execute(sa.select(tasks.c.id, tasks.c.experiment, tasks.c.settings)).all():
        settings = _DEFAULTS | row.settings
        settings["candidates"] = max(settings["candidates"], settings["budget"])
        dataset = None
        if settings.pop("offline", False):
            named = _WARM_UP.fullmatch(row.experiment)
            dataset = named.group(1) if named else row.experiment
        change = sa.update(tasks).where(tasks.c.id == row.id).values(settings=settings, dataset=dataset)
        connection.execute(change)


def _convert_encoders(connection: sa.Connection) -> None:
    spaces = _table("spaces", signature=sa.String, kind=sa.String)
    encoders = _table("encoders", id=sa.Integer, space_signature=sa.String, weights=sa.String)
    blobs = _table("blobs", sha256=sa.String, data=sa.LargeBinary)
    flat = sa.select(spaces.c.signature).where(spaces.c.kind != "hpo")
    connection.execute(sa.delete(encoders).where(encoders.c.space_signature.in_(flat)))
    for digest in connection.scalars(sa.select(encoders.c.weights).distinct()).all():
        data = connection.scalar(sa.select(blobs.c.data).where(blobs.c.sha256 == digest))
        if data is None:
            continue  # an earlier version, whose weights were dropped
        renamed = {f"mlp.{name}": array for name, array in safetensors.numpy.load(data).items()}
        content = safetensors.numpy.save({name: renamed[name] for name in sorted(renamed)})
        new = hashlib.sha256(content).hexdigest()
        if connection.scalar(sa.select(blobs.c.sha256).where(blobs.c.sha256 == new)) is None:
            connection.execute(sa.insert(blobs).values(sha256=new, data=content))
        connection.execute(sa.update(encoders).where(encoders.c.weights == digest).values(weights=new))


def _table(name: str, **columns: Any) -> sa.TableClause:
    return sa.table(name, *(sa.column(column, kind) for column, kind in columns.items()))
