"""What a data set's descriptions have cost so far, on the owner's machine.

Two copies are kept, one next to the data and one in the user's own folder. What either has counts, so a copy that was
deleted or restored from a backup takes nothing back. An entry is on disk before its description leaves: whoever is
killed in between has paid for it, and gets the same bytes when he asks again.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

from nni_hyperfd.files import FolderError, locked
from nni_hyperfd.privacy import caches
from nni_hyperfd.privacy.accounting import GaussianRelease, ZCDPAccountant, rho
from nni_hyperfd.privacy.mechanism import noise_multiplier
from nni_hyperfd.privacy.settings import PrivacyError

FORMAT = 1
FILE = "ledger.json"

_WAIT_SECONDS = 60.0  # another trial holds the ledger for as long as a description of one data set takes


@dataclass(frozen=True)
class Entry:
    """A description that has left, or was about to.

    Attributes:
        id: of the entry.
        fingerprint: of exactly those images, annotations and detector weights.
        extractor: sha256 of the weights that made it.
        terms: what the owner had asked for: a text that differs where a new description would.
        size: the bucket of the number of units.
        multiplier: of the noise.
        released: the numbers.
        when: time in UTC, for the reader; nothing depends on it.
    """

    id: str
    fingerprint: str
    extractor: str
    terms: str
    size: int
    multiplier: float
    released: tuple[float, ...]
    when: str

    def __post_init__(self) -> None:
        GaussianRelease(self.multiplier)
        if not all(math.isfinite(number) for number in self.released):
            raise ValueError("a released number is not finite")


class BudgetError(PrivacyError):
    """One more description would pass the total that the owner has set."""


class Ledger:
    """The entries of one data set.

    Args:
        folders: of the copies; each is created when something is written. They are locked one after another, so all
            processes must name them in the same order.

    Raises:
        PrivacyError: from any method, if a copy is damaged, cannot be read or written, or stays locked.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)

    def entries(self) -> list[Entry]:
        """All that either copy has."""
        known = {entry.id: entry for folder in self.folders for entry in _read(folder / FILE)}
        return list(known.values())

    def accountant(self) -> ZCDPAccountant:
        """What all entries cost together."""
        accountant = ZCDPAccountant()
        for entry in self.entries():
            accountant.compose(GaussianRelease(entry.multiplier))
        return accountant

    def again(self, fingerprint: str, extractors: Collection[str], terms: str) -> Entry | None:
        """The description that an unchanged data set has already, free of charge.

        Args:
            fingerprint: of the data set as it is.
            extractors: the versions whose descriptions the platform can use.
            terms: what the owner asks for.

        Returns:
            The newest such entry, or None.
        """
        alike = [entry for entry in self.entries() if (entry.fingerprint, entry.terms) == (fingerprint, terms)]
        return next((entry for entry in reversed(alike) if entry.extractor in extractors), None)

    def release(self, made: Entry, extractors: Collection[str], total: tuple[float, float]) -> Entry:
        """Count a new description, unless another trial has made the same one meanwhile.

        Args:
            made: the new entry; its numbers must not leave unless they are returned.
            extractors: the versions whose descriptions the platform can use.
            total: epsilon and delta that all descriptions together must keep.

        Returns:
            The entry whose numbers may leave: the new one, or the one that was there.

        Raises:
            BudgetError: a new one would pass the total.
        """
        with self._held():
            if (known := self.again(made.fingerprint, extractors, made.terms)) is not None:
                return known
            entries = self.entries()
            spent = sum(rho(entry.multiplier) for entry in entries)
            if spent + rho(made.multiplier) > rho(noise_multiplier(*total)) * (1 + 1e-9):
                raise BudgetError(
                    f"{self.folders[0]}: one more description would pass the total of epsilon={total[0]:g}; "
                    "'hyperfd privacy ledger' shows what was spent"
                )
            self._write([*entries, made])
            return made

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold all copies, waiting for whoever has them."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            with ExitStack() as stack:
                try:
                    for folder in self.folders:
                        stack.enter_context(locked(folder))
                except FolderError as error:
                    if time.monotonic() > deadline:
                        raise PrivacyError(f"{error}") from None
                except OSError as error:
                    raise _unusable(folder, error) from None
                else:
                    yield
                    return
            time.sleep(0.05)

    def _write(self, entries: Sequence[Entry]) -> None:
        content = [asdict(entry) for entry in entries]
        document = {"format": FORMAT, "entries": content, "sha256": _digest(content)}
        for folder in self.folders:
            try:
                caches.write(folder / FILE, json.dumps(document, indent=1).encode(), durable=True)
            except OSError as error:
                raise _unusable(folder, error) from None


def new_entry(
    fingerprint: str, extractor: str, terms: str, size: int, multiplier: float, released: Sequence[float]
) -> Entry:
    """An entry of now."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Entry(uuid4().hex, fingerprint, extractor, terms, size, multiplier, tuple(released), now)


def _read(path: Path) -> list[Entry]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        if document["sha256"] != _digest(document["entries"]):
            raise ValueError("its checksum differs")
        return [_entry(entry) for entry in document["entries"]]
    except (ValueError, KeyError, TypeError) as error:
        raise PrivacyError(
            f"{path}: the ledger is damaged ({error}); restore it from a backup, or remove it if its copy is whole"
        ) from None


def _entry(content: dict[str, Any]) -> Entry:
    values = {field.name: content[field.name] for field in fields(Entry)}
    return Entry(**values | {"released": tuple(map(float, values["released"]))})


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _unusable(path: Path, error: OSError) -> PrivacyError:
    return PrivacyError(
        f"{path}: the ledger cannot be used ({error.strerror}); make the folder writable, or name another one by "
        "ledger=FOLDER in HYPERFD_PRIVACY"
    )
