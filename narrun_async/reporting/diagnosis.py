"""One finding of `narrun doctor` and the lines it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from narrun_async.errors import ExitCode
from narrun_async.reporting.wording import aligned, printable


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    #: works, and a person should know
    NOTICE = "notice"
    #: a run would fail, or do what nobody wants
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Something that was looked at."""

    #: database, configuration or endpoint
    area: str
    severity: Severity
    #: what was found
    sentence: str
    #: what to do about it; may be empty
    advice: str = ""
    #: what a script is told where it is wrong
    exit_code: ExitCode = ExitCode.COMPLETED


def fine(area: str, sentence: str) -> Diagnosis:
    return Diagnosis(area=area, severity=Severity.OK, sentence=sentence)


def notice(area: str, sentence: str, advice: str = "") -> Diagnosis:
    return Diagnosis(area=area, severity=Severity.NOTICE, sentence=sentence, advice=advice)


def wrong(area: str, sentence: str, advice: str = "", *, exit_code: ExitCode) -> Diagnosis:
    return Diagnosis(area=area, severity=Severity.WRONG, sentence=sentence, advice=advice, exit_code=exit_code)


def overall_exit_code(diagnoses: Sequence[Diagnosis]) -> ExitCode:
    """That of the first thing that is wrong; they are looked at in the order in which a run would meet them."""
    return next((one.exit_code for one in diagnoses if one.severity is Severity.WRONG), ExitCode.COMPLETED)


def diagnosis_lines(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """A line for each finding, what to do below it, and the sum."""
    heads = aligned([(one.area, one.severity.value, "|") for one in diagnoses])
    lines = []
    for head, one in zip(heads, diagnoses, strict=True):
        start = head.removesuffix("|")
        lines.append(start + printable(one.sentence))
        if one.advice:
            lines.append(" " * len(start) + f"→ {printable(one.advice)}")
    n_wrong = sum(one.severity is Severity.WRONG for one in diagnoses)
    n_notices = sum(one.severity is Severity.NOTICE for one in diagnoses)
    what = f"{n_wrong} thing{'s are' if n_wrong > 1 else ' is'} wrong" if n_wrong else "nothing is wrong"
    return [*lines, "", f"{what}; {n_notices} notice{'' if n_notices == 1 else 's'}"]
