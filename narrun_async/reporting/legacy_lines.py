"""What the predecessor left and what was done with it, as lines for people and as a document for scripts."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from narrun_async.models import IdLeft, IdPlan, IdRepair, Inheritance, Migrated, SetAside
from narrun_async.reporting.wording import printable

_INDENT = " " * 11


def migrated_lines(migrated: Migrated) -> list[str]:
    """What opening a database changed; nothing where nothing had to be."""
    if migrated.backup is None:
        return []
    return [
        f"the database was brought up to date; the file as it was: {printable(str(migrated.backup))}",
        *set_aside_lines(migrated.set_aside),
        *_open_lines(migrated.open_to_others),
    ]


def _open_lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    name = printable(shlex.quote(str(path)))
    return [f"NOTE: others can read the database, as they could before; `chmod 600 {name}` keeps them out"]


def set_aside_lines(reports: Sequence[SetAside]) -> list[str]:
    """One for each experiment and time: how many rows there were, how many went, how many stayed."""
    return [f"set aside  {_set_aside_text(report)}" for report in reports]


def _set_aside_text(report: SetAside) -> str:
    whose = f"experiment {printable(report.experiment_id)}" if report.experiment_id else "rows of no experiment"
    when = f", {report.set_aside_at[:19].replace('T', ' ')} UTC" if report.set_aside_at else ""
    return (
        f"{whose}: {report.n_before:,} results, {report.n_moved:,} moved to legacy_results ({report.reason.value}),"
        f" {report.n_after:,} remain{when}"
    )


def id_lines(plan: IdPlan, *, repairing: bool) -> list[str]:
    """Each odd id with what it stands for and what becomes of it.

    :param repairing: the repairs of the plan are made
    """
    verb = "becomes" if repairing else "stands for"
    lines = [
        f"id         {printable(written)} {verb} {stands_for}: {rows}"
        for (written, stands_for, _), rows in _grouped(plan.repairs).items()
    ]
    if plan.repairs and not repairing:
        lines.append(f"{_INDENT}`narrun migrate --fix-ids` repairs these, after a backup")
    for (written, stands_for, obstacle), rows in _grouped(plan.left).items():
        meaning = f" (stands for {stands_for})" if stands_for else ""
        lines.append(f"id         {printable(written)}{meaning} stays, because {obstacle}: {rows}")
    return lines


def _grouped(rows: Sequence[IdRepair | IdLeft]) -> dict[tuple[str, str | None, str], str]:
    """Id, meaning and obstacle → how many rows, in words."""
    counted: dict[tuple[str, str | None, str], Counter[str]] = {}
    for one in rows:
        obstacle = one.obstacle.value if isinstance(one, IdLeft) else ""
        kind = "narrative" if one.row.is_narrative else "result"
        counted.setdefault((one.row.incident_id, one.stands_for, obstacle), Counter())[kind] += 1
    return {
        key: ", ".join(f"{n:,} {kind}{'' if n == 1 else 's'}" for kind, n in kinds.items())
        for key, kinds in counted.items()
    }


def inheritance_lines(inheritance: Inheritance, ids: IdPlan) -> list[str]:
    """What a database holds of the predecessor's; nothing where it holds nothing."""
    if inheritance.is_nothing and not (ids.repairs or ids.left):
        return []
    lines = [
        f"of R       {inheritance.n_results:,} results; experiments: {inheritance.n_untouched:,} as R left them,"
        f" {inheritance.n_adopted:,} taken up",
        *set_aside_lines(inheritance.set_aside),
    ]
    if inheritance.n_columns_overwritten or inheritance.n_ids_repaired:
        lines.append(
            f"changed    {inheritance.n_ids_repaired:,} ids repaired, {inheritance.n_columns_overwritten:,} columns of"
            " experiments overwritten; what they held is in legacy_changes"
        )
    return [*lines, *id_lines(ids, repairing=False)]


def inheritance_json(inheritance: Inheritance, ids: IdPlan) -> dict[str, object]:
    """The same for scripts."""
    odd: list[IdRepair | IdLeft] = [*ids.repairs, *ids.left]
    document = {name: value for name, value in asdict(inheritance).items() if name != "set_aside"}
    document["set_aside"] = [asdict(one) | {"n_after": one.n_after} for one in inheritance.set_aside]
    document["odd_ids"] = [
        {
            "table": "source_narratives" if one.row.is_narrative else "narrative_results",
            "row_id": one.row.row_id,
            "experiment_id": one.row.experiment_id,
            "narrative_type": one.row.narrative_type,
            "written": one.row.incident_id,
            "stands_for": one.stands_for,
            "stays_because": one.obstacle.value if isinstance(one, IdLeft) else None,
        }
        for one in odd
    ]
    return document
