"""What verifying a database brought to light, as lines for people and as a document for scripts."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.models import ExperimentId, InvariantFinding
from narrun_async.reporting.wording import aligned, printable

_INDENT = " " * 5


def verification_lines(findings: Sequence[InvariantFinding]) -> list[str]:
    """A line for each invariant, a few places below those that fell short, and the sum."""
    lines = []
    table = aligned([(one.invariant_id, _verdict(one), one.sentence) for one in findings])
    for finding, line in zip(findings, table, strict=True):
        lines.append(line)
        if finding.obstacle is not None:
            lines.append(f"{_INDENT}not checked to the end: {finding.obstacle}")
        if finding.remark is not None:
            lines.append(f"{_INDENT}{finding.remark}")
        lines += _places(finding.examples, finding.n_violations)
        if finding.n_inherited:
            lines.append(f"{_INDENT}{finding.n_inherited:,} of the predecessor, which do not count:")
            lines += _places(finding.inherited_examples, finding.n_inherited)
    return [*lines, "", *_sum(findings)]


def verification_json(findings: Sequence[InvariantFinding], *, experiment_id: ExperimentId | None) -> dict[str, object]:
    """The same for scripts."""
    return {
        "experiment_id": experiment_id,
        "holds": all(one.holds for one in findings),
        "invariants": [
            {
                "id": one.invariant_id,
                "sentence": one.sentence,
                "holds": one.holds,
                "violations": one.n_violations,
                "examples": list(one.examples),
                "inherited_violations": one.n_inherited,
                "inherited_examples": list(one.inherited_examples),
                "obstacle": one.obstacle,
                "remark": one.remark,
            }
            for one in findings
        ],
    }


def _verdict(finding: InvariantFinding) -> str:
    if finding.n_violations:
        return f"{finding.n_violations:,} violation{'s' if finding.n_violations > 1 else ''}"
    return "ok" if finding.holds else "unknown"


def _places(places: Sequence[str], count: int) -> list[str]:
    shown = [f"{_INDENT}- {printable(place)}" for place in places]
    return [*shown, f"{_INDENT}- and {count - len(places):,} more"] if count > len(places) else shown


def _sum(findings: Sequence[InvariantFinding]) -> list[str]:
    broken = [one.invariant_id for one in findings if not one.holds]
    lines = []
    if any(one.n_inherited for one in findings):
        n_inherited = sum(one.n_inherited for one in findings)
        lines.append(f"notice: {n_inherited:,} violations were inherited from the predecessor; they are only listed")
    if broken:
        lines.append(f"{len(broken)} of {len(findings)} invariants do not hold: {', '.join(broken)}")
    else:
        lines.append(f"all {len(findings)} invariants hold")
    return lines
