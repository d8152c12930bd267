"""What `narrun scrub` and `narrun purge` are going to do and have done, as lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from narrun_async.models import Batch, FoundFiles, ScrubRecord, TextHoldings
from narrun_async.reporting.wording import aligned, printable

_KEPT = "kept       ids, hashes, labels, verdicts, numbers, categories, settings and prompts"


def scrub_plan_lines(database: Path, holdings: TextHoldings, open_batches: Sequence[Batch] = ()) -> list[str]:
    """What is held, and what scrubbing it means."""
    held = [(f"  {name}", f"{number:,} rows") for name, number in holdings.counts.items() if number]
    lines = [
        f"database   {printable(str(database))}",
        "to go      " + (f"{holdings.n_values:,} texts" if held else "no text; the file is written anew all the same"),
        *aligned(held),
        _KEPT,
        "afterwards what is missing of an experiment cannot be sent, and errors cannot be tried again",
        "no backup is made: it would hold what is to go",
    ]
    if open_batches:
        n_requests = sum(batch.n_requests for batch in open_batches)
        lines.append(
            f"NOTE: batches are open ({len(open_batches)}, with {n_requests:,} requests); their answers, which may"
        )
        lines.append("      be paid for, cannot be stored afterwards: `narrun batch collect` does it before")
    if holdings.foreign_tables:
        names = ", ".join(printable(name) for name in holdings.foreign_tables)
        lines.append(f"NOTE: tables of other programs are left as they are: {names}")
    return lines


def scrub_done_lines(
    record: ScrubRecord | None,
    backups: Sequence[Path],
    batch_files: Sequence[Path] = (),
    workbooks: Sequence[Path] = (),
) -> list[str]:
    """What was done, and what still holds the texts."""
    held = [f"NOTE: this batch file still holds texts: {printable(str(path))}" for path in batch_files]
    held += [f"NOTE: this workbook of a reviewer still holds texts: {printable(str(path))}" for path in workbooks]
    if record is None:
        return ["there was no text; the file was written anew", *held]
    lines = [
        f"scrubbed   {record.scrubbed_at}: {record.n_narratives:,} narratives, {record.n_results:,} results,"
        f" {record.n_calls:,} calls",
        "           the file was overwritten and written anew, its -wal emptied",
    ]
    lines += [f"NOTE: this backup still holds the texts: {printable(str(path))}" for path in backups]
    return [
        *lines,
        *held,
        "NOTE: prompts are kept; if they hold examples from real cases, `narrun purge` is the way",
        "NOTE: exports with text, copies, the workbook and the medium itself are out of reach of this program",
    ]


def purge_plan_lines(found: FoundFiles, beyond: Sequence[str]) -> list[str]:
    """Every file that is going to be destroyed, what stays, and what cannot be reached."""
    lines = [f"{len(found.files)} files are overwritten once and removed:"]
    lines += [f"  {printable(str(path))}" for path in found.files]
    lines += [f"  {printable(str(path))}  (directory, if it is empty then)" for path in found.directories]
    if found.directories:
        lines.append("NOTE: a copy of this database that lives on has the same log files; it would lose its journal")
    if found.left:
        lines.append("left alone:")
        lines += [f"  {printable(one.path)}: {printable(one.why)}" for one in found.left]
    lines.append("out of reach:")
    return lines + [f"  {printable(one)}" for one in beyond]
