"""Finds the one answer object in a text that is more than JSON; where two differ, it takes neither."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from narrun_async.models import Detection, ErrorCategory, Failure, Verdict
from narrun_async.parsing.fields import CONFIDENCE_FIX, fix_confidence, judge_object, read_detected
from narrun_async.parsing.repair import detected_literals, has_stray_fields, has_stray_syntax, repair_object
from narrun_async.parsing.strict_json import STRING, MalformedJsonError, RefusedJsonError, decode_answer

#: longer texts are no answers, and searching them would hold up every other call
MAX_SEARCHED_CHARS = 262_144
MAX_SEGMENTS = 64

# A brace that opens an object, and not one of prose or of a template's `{{`.
_OPENING = re.compile(r"\{(?=\s*(?:[\"']|detected\b|//|/\*))", re.IGNORECASE)
_BRACES = re.compile(STRING + r"|[{}]", re.DOTALL)
_FENCE = "```"
_MENTION = re.compile(r"detected|\\u00", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    """A stretch of text that looks like one object."""

    text: str = field(repr=False)
    is_closed: bool
    #: how it was found: `json` (it is the whole text), `fence` or `object`
    place: str
    #: its slice of the text
    start: int
    end: int


@dataclass(slots=True, kw_only=True)
class _Findings:
    """What the segments of one text turned out to be."""

    #: verdicts of objects whose `detected` is decided
    decided: list[Verdict] = field(default_factory=list)
    #: verdicts of objects whose `detected` is not: a schema that was echoed
    undecided: list[Verdict] = field(default_factory=list)
    #: closed and no JSON, with their text after the domain fixes
    malformed: list[tuple[_Segment, str]] = field(default_factory=list)
    unclosed: list[_Segment] = field(default_factory=list)
    #: what stands around the closed segments
    prose: list[str] = field(default_factory=list)

    def said_without_proof(self) -> frozenset[bool]:
        """What prose and malformed objects plainly say; inside a sound object the same words are a quotation."""
        texts = (*self.prose, *(source for _, source in self.malformed))
        return frozenset[bool]().union(*(detected_literals(text) for text in texts))


def read_whole(text: str, *, prefix: str, reasoning: str | None) -> Verdict | None:
    """The verdict of a text that is one JSON object and nothing else, but perhaps a fence around it."""
    place = "json"
    if text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) > 2 * len(_FENCE):
        language, brace, rest = text[len(_FENCE) : -len(_FENCE)].partition("{")
        if language.strip() and not language.strip().isalnum():
            return None
        text, place = brace + rest, "fence"
    if not text.startswith("{"):
        return None
    try:
        value = decode_answer(text)
    except MalformedJsonError:
        return None
    except RefusedJsonError as refused:
        return _refused(refused)
    if isinstance(value, dict) and "detected" in value:
        return judge_object(value, method=prefix + place, reasoning=reasoning)
    return None


def find_answer(text: str, *, prefix: str, reasoning: str | None, may_repair: bool) -> Verdict | None:
    """The verdict of the only answer object in a text; None where nothing looks like one.

    Objects that agree in every field count once. What stands beside a sound object is no obstacle unless it
    plainly says the opposite.

    :param text: stripped
    """
    if len(text) > MAX_SEARCHED_CHARS:
        return _bad_json("the answer is too long to be searched for JSON")
    try:
        findings = _examine(text, prefix, reasoning)
    except RefusedJsonError as refused:
        return _refused(refused)
    if any(_MENTION.search(segment.text) for segment in findings.unclosed):
        return _TRUNCATED
    if findings.decided:
        return _agreed(findings)
    if any(_MENTION.search(source) for _, source in findings.malformed):
        return _repair(findings, prefix, reasoning) if may_repair else _MALFORMED
    if findings.undecided:
        return findings.undecided[0]
    return _TRUNCATED if findings.unclosed else None


def _examine(text: str, prefix: str, reasoning: str | None) -> _Findings:
    findings = _Findings()
    position = 0
    for number, segment in enumerate(_iter_segments(text), start=1):
        if number > MAX_SEGMENTS:
            raise RefusedJsonError(f"holds more than {MAX_SEGMENTS} objects")
        if not segment.is_closed:
            findings.unclosed.append(segment)
            break
        findings.prose.append(text[position : segment.start])
        position = segment.end
        fix = ""
        source = segment.text
        try:
            value = decode_answer(source)
        except MalformedJsonError:
            source = fix_confidence(source)
            fix = CONFIDENCE_FIX if source != segment.text else ""
            try:
                value = decode_answer(source)
            except MalformedJsonError:
                findings.malformed.append((segment, source))
                continue
        for answer in _iter_answers(value):
            place = segment.place if answer is value else "object"
            verdict = judge_object(answer, method=prefix + place + fix, reasoning=reasoning)
            is_decided = read_detected(answer["detected"]) is not None
            (findings.decided if is_decided else findings.undecided).append(verdict)
    findings.prose.append(text[position:])
    return findings


def _agreed(findings: _Findings) -> Verdict:
    verdict = findings.decided[0]
    if any(_essence(other) != _essence(verdict) for other in findings.decided[1:]):
        return _AMBIGUOUS
    if isinstance(verdict, Detection) and findings.said_without_proof() - {verdict.detected}:
        return _AMBIGUOUS
    return _IN_PIECES if any(has_stray_fields(prose) for prose in findings.prose) else verdict


def _essence(verdict: Verdict) -> object:
    if isinstance(verdict, Failure):
        return verdict
    return (verdict.detected, verdict.confidence, verdict.indicators, verdict.rationale)


def _repair(findings: _Findings, prefix: str, reasoning: str | None) -> Verdict:
    """The verdict of a malformed object that stands alone. Beside any other piece of JSON it may be a quotation."""
    if len(findings.said_without_proof()) > 1:
        return _AMBIGUOUS
    is_alone = len(findings.malformed) == 1 and not findings.undecided and not findings.unclosed
    if not is_alone or any(has_stray_syntax(prose) for prose in findings.prose):
        return _IN_PIECES
    [(segment, source)] = findings.malformed
    repaired = repair_object(source)
    if repaired is None:
        return _MALFORMED
    method = f"{prefix}json_repair{CONFIDENCE_FIX if source != segment.text else ''}"
    return judge_object(repaired, method=method, reasoning=reasoning)


def _iter_answers(value: object) -> Iterator[dict[str, object]]:
    """Outermost objects with `detected`; what is nested inside one belongs to it."""
    if isinstance(value, dict):
        if "detected" in value:
            yield value
        else:
            for inner in value.values():
                yield from _iter_answers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _iter_answers(inner)


def _iter_segments(text: str) -> Iterator[_Segment]:
    """Objects in order, none inside another: what stands inside a malformed object is never taken for the answer."""
    position = 0
    while opening := _OPENING.search(text, position):
        start = opening.start()
        end = _closing(text, start)
        if end is None:
            yield _Segment(text=text[start:], is_closed=False, place="object", start=start, end=len(text))
            return
        is_whole = start == 0 and end == len(text)
        is_fenced = text.count(_FENCE, 0, start) % 2 == 1
        place = "json" if is_whole else "fence" if is_fenced else "object"
        yield _Segment(text=text[start:end], is_closed=True, place=place, start=start, end=end)
        position = end


def _closing(text: str, start: int) -> int | None:
    """Where the object that opens at `start` ends; None where the text ends first."""
    depth = 0
    for token in _BRACES.finditer(text, start):
        sign = text[token.start()]
        if sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                return token.end()
    # An unescaped quote inside a string throws the count of quotes out; a text that ends in a brace was not cut off.
    end = len(text.rstrip("` \t\r\n"))
    return end if end > start and text[end - 1] == "}" else None


def _bad_json(message: str) -> Failure:
    return Failure(category=ErrorCategory.BAD_JSON, message=message)


def _refused(refused: RefusedJsonError) -> Failure:
    return _bad_json(f"the answer {refused.reason}")


_TRUNCATED = Failure(category=ErrorCategory.TRUNCATED, message="the answer ends inside its JSON object")
_MALFORMED = _bad_json("the answer's JSON is malformed, and what it means is not plain")
_IN_PIECES = _bad_json("the answer's JSON is in pieces")
_AMBIGUOUS = Failure(category=ErrorCategory.AMBIGUOUS, message="the answer holds objects that contradict each other")
