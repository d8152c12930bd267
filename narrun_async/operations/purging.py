"""Destroys a database and the files around it, and certifies what was destroyed and what could not be reached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from narrun_async import __version__
from narrun_async.clock import utc_now, utc_text
from narrun_async.errors import StorageError
from narrun_async.logs import replace_private_file
from narrun_async.models import FoundFiles, RemovedFile
from narrun_async.stores.removal import doom, overwrite_and_remove, remove_if_empty

_ALWAYS_BEYOND = (
    "backups and snapshots by other programs or of the file system, and synchronised or cloud copies",
    "copies that people made, mails, screenshots, what was pasted elsewhere",
    "the medium: files were overwritten once through the file system; an SSD (wear levelling) and a journaling or"
    " copy-on-write file system may keep old blocks, and only destroying the medium or the key of an encrypted one is"
    " certain",
    "swap, hibernation images and core dumps of this machine",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Where the certificate is written, and what stands in it before the first file goes."""

    path: Path
    database: str
    host: str
    user: str
    experiment_ids: Sequence[str]
    n_narratives: int
    n_results: int
    beyond: Sequence[str]


def beyond_reach(
    *,
    backups: Sequence[str],
    exports: Sequence[str],
    batch_files: Sequence[str],
    workbooks: Sequence[str],
    sources: Sequence[str],
    endpoints: Sequence[str],
    remote_files: Sequence[str],
) -> list[str]:
    """What a purge cannot destroy, each by its name where it is known."""
    known = [
        *(f"a backup: {path}" for path in backups),
        *(f"an export of a run: {path}" for path in exports),
        *(f"a batch file: {path}" for path in batch_files),
        *(f"a workbook of a reviewer, wherever it is by now: {path}" for path in workbooks),
        *(f"at the provider, unless it was deleted there, a batch or a file of one: {name}" for name in remote_files),
        *(f"the file that the narratives came from: {path}" for path in sources),
        *(f"what an endpoint kept of its requests: {url}" for url in endpoints if url != "simulated"),
        "exports and reports that were made by hand (`narrun export`, `narrun report`), wherever they went",
    ]
    return [*known, *_ALWAYS_BEYOND]


def purge(database: Path, found: FoundFiles, certificate: Certificate) -> Sequence[RemovedFile]:
    """Destroy the files that were found. The caller holds the lock. Cut short at any moment, it can be repeated.

    The certificate is on disk, as unfinished, before the first file goes, and again after the last.

    :raises StorageError: the certificate cannot be written (nothing is gone), or a file cannot be removed
    """
    began = utc_text(utc_now())
    _write(certificate, began=began, ended=None, found=found, removed=[])
    removed: list[RemovedFile] = []
    directories: list[Path] = []
    try:
        for path in found.files:
            if path == database:
                # It alone knows of the others, so they go before it.
                directories = [directory for directory in found.directories if remove_if_empty(directory)]
                gone = overwrite_and_remove(doom(path))
            else:
                gone = overwrite_and_remove(path)
            removed.append(replace(gone, path=str(path)))
    finally:
        ended = utc_text(utc_now()) if len(removed) == len(found.files) else None
        _write(certificate, began=began, ended=ended, found=found, removed=removed, directories=directories)
    return removed


def _write(
    certificate: Certificate,
    *,
    began: str,
    ended: str | None,
    found: FoundFiles,
    removed: Sequence[RemovedFile],
    directories: Sequence[Path] = (),
) -> None:
    document = {
        "what": "certificate of a narrun purge" if ended else "UNFINISHED purge: repeat `narrun purge` with this --db",
        "narrun_version": __version__,
        "database": certificate.database,
        "experiments": list(certificate.experiment_ids),
        "n_narratives": certificate.n_narratives,
        "n_results": certificate.n_results,
        "host": certificate.host,
        "user": certificate.user,
        "began": began,
        "ended": ended,
        "method": "overwritten once with random bytes, fsync, removed",
        "removed": [asdict(one) for one in removed],
        "directories_removed": [str(directory) for directory in directories],
        "to_be_removed": [str(path) for path in found.files[len(removed) :]],
        "left_alone": [asdict(one) for one in found.left],
        "out_of_reach": list(certificate.beyond),
    }
    try:
        replace_private_file(certificate.path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    except OSError as error:
        raise StorageError(
            f"the certificate cannot be written: {error.strerror}",
            path=certificate.path,
            advice="name another place with --certificate",
        ) from error
