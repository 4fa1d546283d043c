"""Tenants and their tokens: who may use a server, as what, and how much of it.

A token is shown once, when it is made; the state keeps its sha256. That is as good as a slow hash here, because a token
is 256 random bits and no password that could be guessed. Times are those of this process's clock.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nni_hyperfd.state.errors import QuotaError, RefusedError, TokenError
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import TaskRow, TenantRow, TokenRow, now
from nni_hyperfd.task import Scope

PREFIX = "hfd_"
"""What every token begins with, so that scanners of source code and logs find one that was left there."""
DAYS = 365
"""How long a token is valid unless something else is said."""
OVERLAP_HOURS = 24
"""How long an earlier token stays valid after a rotation unless something else is said."""
OPEN_TASKS, TASKS_A_DAY = 100, 1000
"""Quotas of a tenant unless something else is said."""

_TOKEN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FINGERPRINT = 8  # digits of the hash
_UNKNOWN = "the token is not valid; ask the server's operator for one"


@dataclass(frozen=True)
class Caller:
    """Who asks, and what he may do.

    Attributes:
        tenant_id: of the tenant.
        name: of the tenant.
        scope: of the token.
    """

    tenant_id: int
    name: str
    scope: Scope


@dataclass(frozen=True)
class TokenView:
    """A token as its operator sees it.

    Attributes:
        fingerprint: the first digits of its sha256.
        scope: what it lets do.
        created: when it was made, in UTC without a zone, as the following ones.
        expires: until when it is valid.
        revoked: when it was revoked, or None.
        valid: whether it is valid now.
    """

    fingerprint: str
    scope: Scope
    created: datetime
    expires: datetime
    revoked: datetime | None
    valid: bool


@dataclass(frozen=True)
class TenantView:
    """A tenant as its operator sees it.

    Attributes:
        name: of the tenant.
        open_tasks: how many of its tasks may be open at once; None for any number.
        tasks_a_day: how many tasks it may begin within 24 hours; None for any number.
        tasks: how many tasks it has.
        open: how many of them are open.
        tokens: all of its tokens, the newest first.
    """

    name: str
    open_tasks: int | None
    tasks_a_day: int | None
    tasks: int
    open: int
    tokens: tuple[TokenView, ...]


class Tenants:
    """The tenants of a state."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def caller(self, token: str) -> Caller:
        """Who a token stands for.

        Raises:
            TokenError: nobody has such a token (any more).
        """
        if not _TOKEN.fullmatch(token):
            raise TokenError(_UNKNOWN)
        # Found by its hash, so that how long it takes tells nothing of the tokens that there are.
        query = (
            select(TokenRow.expires, TokenRow.revoked, TokenRow.scope, TenantRow.id, TenantRow.name)
            .join(TenantRow, TenantRow.id == TokenRow.tenant_id)
            .where(TokenRow.sha256 == _sha256(token))
        )
        with self._store.read() as session:
            found = session.execute(query).one_or_none()
        if found is None or found.revoked is not None:
            raise TokenError(_UNKNOWN)
        if _utc(found.expires) <= now():
            raise TokenError("the token has expired; ask the server's operator for a new one")
        return Caller(found.id, found.name, found.scope)

    def add(
        self,
        name: str,
        scope: Scope = Scope.CLIENT,
        days: int = DAYS,
        open_tasks: int | None = None,
        tasks_a_day: int | None = None,
    ) -> str:
        """Add a tenant, or one more token of a tenant.

        Args:
            name: of the tenant: up to 64 letters, digits, dots, dashes and underscores.
            scope: of the token.
            days: until the token expires.
            open_tasks: how many of its tasks may be open at once, 0 for any number; None for `OPEN_TASKS`, or what it
                was.
            tasks_a_day: how many tasks it may begin within 24 hours, 0 for any number; None for `TASKS_A_DAY`, or what
                it was.

        Returns:
            The token.

        Raises:
            RefusedError: the name is not usable.
        """
        if not _NAME.fullmatch(name):
            raise RefusedError(
                f"tenant {name!r}: a name has up to 64 letters, digits, dots, dashes and underscores, and begins with "
                "a letter or digit"
            )
        with self._store.write() as session:
            tenant = session.scalar(select(TenantRow).where(TenantRow.name == name))
            if tenant is None:
                tenant = TenantRow(name=name, open_tasks=OPEN_TASKS, tasks_a_day=TASKS_A_DAY)
                session.add(tenant)
            if open_tasks is not None:
                tenant.open_tasks = open_tasks or None
            if tasks_a_day is not None:
                tenant.tasks_a_day = tasks_a_day or None
            session.flush()
            return _new_token(session, tenant, scope, days)

    def rotate(
        self, name: str, scope: Scope = Scope.CLIENT, days: int = DAYS, overlap_hours: float = OVERLAP_HOURS
    ) -> str:
        """Give a tenant a new token in place of its valid ones of the same scope, which soon expire.

        Args:
            name: of the tenant.
            scope: of the token.
            days: until the new token expires.
            overlap_hours: until the earlier ones do, so that running experiments can change over.

        Returns:
            The new token.

        Raises:
            RefusedError: the tenant has no valid token of the scope.
        """
        with self._store.write() as session:
            tenant = _tenant(session, name)
            earlier = [token for token in _tokens(session, tenant) if token.scope is scope and _is_valid(token)]
            if not earlier:
                raise RefusedError(
                    f"tenant {name}: it has no valid token of scope {scope}; 'hyperfd tenant add {name} --scope "
                    f"{scope}' gives it one"
                )
            until = now() + timedelta(hours=overlap_hours)
            for token in earlier:
                token.expires = min(_utc(token.expires), until)
            return _new_token(session, tenant, scope, days)

    def revoke(self, name: str, fingerprint: str | None = None) -> list[str]:
        """Make tokens of a tenant invalid at once.

        Args:
            name: of the tenant.
            fingerprint: of the token; None for all of them.

        Returns:
            The fingerprints of the tokens that were valid until now.

        Raises:
            RefusedError: there is no such tenant, or it has no such token.
        """
        with self._store.write() as session:
            tokens = _tokens(session, _tenant(session, name))
            if fingerprint is not None:
                tokens = [token for token in tokens if _fingerprint(token) == fingerprint]
                if not tokens:
                    raise RefusedError(
                        f"tenant {name}: it has no token {fingerprint}; 'hyperfd tenant list' shows their fingerprints"
                    )
            revoked = [_fingerprint(token) for token in tokens if _is_valid(token)]
            for token in tokens:
                token.revoked = token.revoked or now()
            return revoked

    def remove(self, name: str) -> None:
        """Remove a tenant without tasks, and its tokens.

        Raises:
            RefusedError: there is no such tenant, or it has tasks.
        """
        with self._store.write() as session:
            tenant = _tenant(session, name)
            tasks = session.scalar(select(func.count()).where(TaskRow.tenant_id == tenant.id))
            if tasks:
                raise RefusedError(
                    f"tenant {name}: it has {tasks} tasks, which others learn from; delete them first with "
                    f"'hyperfd forget --tenant {name}', or take its tokens away with 'hyperfd tenant revoke {name}'"
                )
            for token in _tokens(session, tenant):
                session.delete(token)
            session.flush()
            session.delete(tenant)

    def list(self) -> list[TenantView]:
        """All tenants by name."""
        with self._store.read() as session:
            counts = select(TaskRow.tenant_id, func.count(), func.count().filter(TaskRow.closed.is_(None)))
            tasks = {
                id: (all_of_them, open) for id, all_of_them, open in session.execute(counts.group_by(TaskRow.tenant_id))
            }
            return [
                TenantView(
                    tenant.name,
                    tenant.open_tasks,
                    tenant.tasks_a_day,
                    *tasks.get(tenant.id, (0, 0)),
                    tuple(map(_view, _tokens(session, tenant))),
                )
                for tenant in session.scalars(select(TenantRow).order_by(TenantRow.name))
            ]


def check_quotas(session: Session, tenant_id: int) -> None:
    """See whether a tenant may begin one more task.

    A task that was removed does not count.

    Args:
        session: of the transaction that adds the task.
        tenant_id: of the tenant.

    Raises:
        QuotaError: it may not.
        TokenError: there is no such tenant any more.
    """
    tenant = session.get(TenantRow, tenant_id)
    if tenant is None:  # it was removed since it was asked who calls
        raise TokenError(_UNKNOWN)
    own = select(func.count()).select_from(TaskRow).where(TaskRow.tenant_id == tenant_id)
    if tenant.open_tasks is not None:
        count = session.scalar(own.where(TaskRow.closed.is_(None))) or 0
        if count >= tenant.open_tasks:
            raise QuotaError(
                f"{count} tasks of this tenant are open, and no more may be; let them end, or ask the server's "
                "operator for more"
            )
    if tenant.tasks_a_day is not None:
        count = session.scalar(own.where(TaskRow.created > now() - timedelta(days=1))) or 0
        if count >= tenant.tasks_a_day:
            raise QuotaError(
                f"this tenant has begun {count} tasks within 24 hours, and may begin no more; try again later, or ask "
                "the server's operator for more"
            )


def _new_token(session: Session, tenant: TenantRow, scope: Scope, days: int) -> str:
    token = PREFIX + secrets.token_urlsafe(32)
    expires = now() + timedelta(days=days)
    session.add(TokenRow(tenant_id=tenant.id, sha256=_sha256(token), scope=scope, expires=expires))
    return token


def _tenant(session: Session, name: str) -> TenantRow:
    tenant = session.scalar(select(TenantRow).where(TenantRow.name == name))
    if tenant is None:
        raise RefusedError(f"there is no tenant {name!r}; 'hyperfd tenant list' names them")
    return tenant


def _tokens(session: Session, tenant: TenantRow) -> list[TokenRow]:
    query = select(TokenRow).where(TokenRow.tenant_id == tenant.id).order_by(TokenRow.id.desc())
    return [*session.scalars(query)]


def _view(token: TokenRow) -> TokenView:
    return TokenView(_fingerprint(token), token.scope, token.created, token.expires, token.revoked, _is_valid(token))


def _is_valid(token: TokenRow) -> bool:
    return token.revoked is None and _utc(token.expires) > now()


def _fingerprint(token: TokenRow) -> str:
    return token.sha256[:_FINGERPRINT]


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _utc(time: datetime) -> datetime:
    """A time from the tables, which have lost the zone."""
    return time.replace(tzinfo=timezone.utc)
