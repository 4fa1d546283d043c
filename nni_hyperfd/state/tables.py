"""The tables of the state. Rows stay inside `state` and `platform`; others get the views of `state.views`."""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    UniqueConstraint,
    and_,
    func,
    text,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from nni_hyperfd.task import RESULT_PHASES, Phase, Scope, Status, TaskSettings


def now() -> datetime:
    """The time with its zone, as all tables keep it."""
    return datetime.now(timezone.utc)


class SettingsType(TypeDecorator[TaskSettings]):
    """`TaskSettings` as a JSON object."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: TaskSettings | None, dialect: Dialect) -> dict[str, Any] | None:
        """To the database."""
        return None if value is None else value.to_json()

    def process_result_value(self, value: Any, dialect: Dialect) -> TaskSettings | None:
        """From the database."""
        return None if value is None else TaskSettings.from_json(value)


def words(kind: type[Enum]) -> EnumType:
    """An enumeration by its values, as text."""
    return EnumType(kind, native_enum=False, length=16, values_callable=lambda words: [word.value for word in words])


class Base(DeclarativeBase):
    """Of all tables."""

    type_annotation_map = {
        # SQLite's integers have 64 bits, and its keys count by themselves under this name only.
        int: BigInteger().with_variant(Integer, "sqlite"),
        dict[str, Any]: JSON,
        list[float]: JSON(none_as_null=True),
        bytes: LargeBinary,
        TaskSettings: SettingsType,
        Phase: words(Phase),
        Status: words(Status),
        Scope: words(Scope),
    }


class BlobRow(Base):
    """Weights or features as safetensors, named by their content."""

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class SpaceRow(Base):
    """A search space in which there are tasks."""

    __tablename__ = "spaces"
    signature: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    definition: Mapped[dict[str, Any]]


class ExtractorRow(Base):
    """One version of the meta-feature extractor; a version without weights is the seeded initial one.

    `weights` and `importance` name blobs, which are dropped when no task can need them any more. `described` stays: the
    meta-features of the platform's own data sets under this version, by the sha256 of their features (safetensors).
    `among` is that of the owner whose update it is, as long as nothing of it may be handed on alone; None otherwise.
    """

    __tablename__ = "extractors"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("extractors.id"))
    head: Mapped[bool] = mapped_column(index=True)
    weights: Mapped[str | None] = mapped_column(index=True)
    importance: Mapped[str | None]
    described: Mapped[bytes | None]
    among: Mapped[int | None]
    created: Mapped[datetime] = mapped_column(default=now)


class TenantRow(Base):
    """A client's name on a server, and what it may use of it; None: no limit."""

    __tablename__ = "tenants"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    open_tasks: Mapped[int | None]
    tasks_a_day: Mapped[int | None]
    created: Mapped[datetime] = mapped_column(default=now)


class TokenRow(Base):
    """A tenant's key, of which only the hash is kept."""

    __tablename__ = "tokens"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"), index=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    scope: Mapped[Scope]
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime]
    revoked: Mapped[datetime | None]


class TaskRow(Base):
    """One data set's turn: one NNI experiment on one data set.

    `tenant_id` is None on a platform without tenants. `dataset` names one of the platform's own data sets, if the task
    stands for that and not for a client's. `among` and `share` are what the owner has said in his description
    (`wire.Description`). `holder` names the advisor that has opened the task last. `learned` is when the encoder had
    learned from the closed task.
    """

    __tablename__ = "tasks"
    # How many tasks of a space are closed is asked before every pick, which extractors open ones need at every closing.
    __table_args__ = (
        Index("ix_tasks_closed", "space_signature", "closed"),
        Index("ix_tasks_extractor", "closed", "extractor_id"),
        Index("ix_tasks_learned", "learned", "closed"),
        # Without a tenant, too, an experiment has one task; NULL alone would differ from NULL.
        Index("ix_tasks_experiment", func.coalesce(text("tenant_id"), 0), "experiment", unique=True),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int | None] = mapped_column(ForeignKey("tenants.id"), index=True)
    experiment: Mapped[str]
    space_signature: Mapped[str] = mapped_column(ForeignKey("spaces.signature"))
    settings: Mapped[TaskSettings]
    dataset: Mapped[str | None]
    extractor_id: Mapped[int] = mapped_column(ForeignKey("extractors.id"))
    meta_feature: Mapped[list[float] | None]
    num_images: Mapped[int | None]
    num_boxes: Mapped[int | None]
    baseline: Mapped[float | None]
    among: Mapped[int | None]
    share: Mapped[bool | None]
    created: Mapped[datetime] = mapped_column(default=now)
    closed: Mapped[datetime | None]
    learned: Mapped[datetime | None]
    holder: Mapped[str | None]
    trials: Mapped[list[TrialRow]] = relationship(back_populates="task", order_by="TrialRow.id", lazy="selectin")
    space: Mapped[SpaceRow] = relationship(lazy="joined")


class TrialRow(Base):
    """One trial of a task: planned, then running, then succeeded or failed. The finished ones are the experience."""

    __tablename__ = "trials"
    __table_args__ = (UniqueConstraint("task_id", "parameter_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), index=True)
    parameter_id: Mapped[int | None]
    phase: Mapped[Phase]
    status: Mapped[Status] = mapped_column(default=Status.PLANNED)
    configuration: Mapped[dict[str, Any]]
    rank: Mapped[int | None]
    score: Mapped[float | None]
    performance: Mapped[float | None] = mapped_column(Float)
    reason: Mapped[str | None]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    task: Mapped[TaskRow] = relationship(back_populates="trials")

    @hybrid_property
    def is_result(self) -> bool:
        """Whether it tells how good its configuration is."""
        return self.phase in RESULT_PHASES and self.status is Status.SUCCEEDED

    @is_result.inplace.expression
    @classmethod
    def _is_result(cls) -> ColumnElement[bool]:
        return and_(cls.phase.in_(RESULT_PHASES), cls.status == Status.SUCCEEDED)


class EncoderRow(Base):
    """One version of a space's configuration encoder, trained towards one version of the extractor.

    `weights` names a blob, which only the newest version keeps.
    """

    __tablename__ = "encoders"
    id: Mapped[int] = mapped_column(primary_key=True)
    space_signature: Mapped[str] = mapped_column(ForeignKey("spaces.signature"), index=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    extractor_id: Mapped[int] = mapped_column(ForeignKey("extractors.id"))
    weights: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=now)


class OfflineDatasetRow(Base):
    """Image features of one of the platform's own data sets (D_off); private ones are never handed to a client."""

    __tablename__ = "offline_datasets"
    name: Mapped[str] = mapped_column(primary_key=True)
    features: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    private: Mapped[bool | None]
