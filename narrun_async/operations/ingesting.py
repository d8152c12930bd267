"""Brings a workbook into the database once; afterwards it is never opened again, not even to resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from narrun_async.errors import BadInputError
from narrun_async.models import DataSource, IngestReport
from narrun_async.ports import ConflictRule, NarrativeSource, ScreeningStore, SourceStore
from narrun_async.screening import ScreeningRules


class IngestStore(SourceStore, ScreeningStore, Protocol):
    """What ingest needs of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A workbook or table that may have to be read.

    `checksums` reads the bytes only; `open` parses them, and is called only when the database does not hold them.
    `rules` reads the rule file by which the texts are screened, and is called only when some are looked at.
    """

    path: Path
    #: SHA-256, then the MD5 under which the predecessor knew the same file
    checksums: Callable[[], tuple[str, ...]]
    open: Callable[[], NarrativeSource]
    rules: Callable[[], ScreeningRules]
    #: the rule file that a person named; None: the rules that come with the program
    rules_file: Path | None = None
    on_conflict: ConflictRule = "error"

    @property
    def is_missing(self) -> bool:
        """Whether nothing is there; a directory, or a path that may not be followed, is refused when it is opened."""
        try:
            return not self.path.exists()
        except OSError:
            return False


async def ingest(store: IngestStore, file: SourceFile) -> IngestReport:
    """Store the narratives of a file and screen them, unless the database holds them. Safe to repeat.

    A file that is gone but known by its path is not needed: the report says so in a warning.

    :raises BadInputError: the file is missing and unknown, or cannot be taken as it is; nothing was stored
    :raises ConfigurationError: the rule file is wrong; nothing was stored
    """
    known = await find_known_source(store, file)
    if known is not None:
        screening = await store.load_screening(known.checksum)
        return IngestReport(source=known, loaded=False, is_missing=file.is_missing, screening=screening)
    if file.is_missing:
        raise BadInputError(
            f"{file.path}: there is no such file, and the database holds nothing that was loaded from it",
            advice="check `data.file`; paths are relative to the directory the program is started in",
        )
    rules = file.rules()
    return await store.add_source(file.open(), on_conflict=file.on_conflict, rules=rules)


async def find_known_source(store: SourceStore, file: SourceFile) -> DataSource | None:
    """What the database holds of a file: by its bytes, or by its path where the file itself is gone."""
    if file.is_missing:
        return await store.find_source_by_path(str(file.path))
    return await store.find_source(checksums=file.checksums())
