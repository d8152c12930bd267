"""Owns what a doubtful text is: a placeholder, a near-empty one, one that was cut off. Pure; reads no file.

A flag depends on the text and the rules alone, so equal texts have equal flags, and whoever has the rule file can tell
them again. A text is a placeholder only as a whole: one that merely contains such a phrase is a narrative.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from narrun_async.config.complaints import complaint_about
from narrun_async.config.sections import Section
from narrun_async.config.values import Line
from narrun_async.errors import ConfigurationError
from narrun_async.models import TextFlag

#: characters of a normalised text beyond which no placeholder is looked for
MAX_PLACEHOLDER_CHARS = 200
#: the same before normalisation, which mostly takes characters away
_MAX_RAW_CHARS = 2 * MAX_PLACEHOLDER_CHARS
#: the most characters (UTF-16 units) that a cell of a workbook holds
EXCEL_CELL_CHARS = 32_767

#: `{name}` in a pattern; a count such as `{2}` or `{1,3}` is none
_WORD = re.compile(r"\{([a-z_]+)\}")
_APOSTROPHES = re.compile("['’`´]")
_NO_LETTERS = re.compile(r"[\W_]+")
_ENDS_INSIDE = re.compile(r"[\w,;:\-–]\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreeningRules:
    """One rule file, understood."""

    #: what it calls itself
    name: str
    #: SHA-256 hex of its bytes
    sha256: str
    #: name of a rule → what it matches, as a whole, in normalised texts
    placeholders: Mapping[str, re.Pattern[str]]
    #: matches at the beginning of a text that has enough letters and digits to be more than a word
    enough_signs: re.Pattern[str]
    #: lengths in characters at which databases cut texts off
    column_lengths: frozenset[int]
    #: what programs and people write where a text was cut off, in lower case
    cut_marks: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:12]})"

    def placeholder_rule(self, text: str) -> str | None:
        """The name of the rule that knows a text as a placeholder; None for a narrative."""
        if len(text) > _MAX_RAW_CHARS:
            return None
        normalised = normalise(text)
        if len(normalised) > MAX_PLACEHOLDER_CHARS:
            return None
        return next((name for name, pattern in self.placeholders.items() if pattern.fullmatch(normalised)), None)

    def flags_of(self, text: str) -> tuple[TextFlag, ...]:
        """The flags of a canonical text, in the order in which they are stored."""
        flags = []
        if self.placeholder_rule(text) is not None:
            flags.append(TextFlag.PLACEHOLDER)
        elif self.enough_signs.match(text) is None:
            flags.append(TextFlag.NEAR_EMPTY)
        if self._is_truncated(text):
            flags.append(TextFlag.TRUNCATED)
        return tuple(flags)

    def _is_truncated(self, text: str) -> bool:
        if _may_fill_a_cell(text) or text.rstrip()[-40:].casefold().endswith(self.cut_marks):
            return True
        return len(text) in self.column_lengths and _ENDS_INSIDE.search(text) is not None


def flags_text(flags: Iterable[TextFlag]) -> str:
    """Flags as they are stored: separated by commas, "" for none."""
    return ",".join(flag.value for flag in flags)


def normalise(text: str) -> str:
    """Letters and digits alone, in one case, one blank between words; apostrophes go without leaving a gap.

    `*** NO REPORT (L/E) AVAILABLE.` becomes `no report l e available`.
    """
    folded = _APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold())
    return _NO_LETTERS.sub(" ", folded).strip()


def _may_fill_a_cell(text: str) -> bool:
    """Whether it is as long as a cell can be, where each of its line ends may have been two characters there."""
    if 2 * len(text) < EXCEL_CELL_CHARS:
        return False
    n_units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return n_units <= EXCEL_CELL_CHARS <= n_units + text.count("\n")


# --- the rule file ---------------------------------------------------------------------------------------------------


def _short(value: str) -> str:
    if len(value) > 80:
        raise ValueError("must be at most 80 characters long")
    return value


_Expression = Annotated[str, Field(max_length=1_000)]
_Name = Annotated[Line, AfterValidator(_short)]
_Length = Annotated[int, Field(ge=1, le=1_000_000)]


class _Rule(Section):
    """Phrases that say the same in different words."""

    name: _Name
    #: why such a text is no narrative
    reason: Line
    patterns: list[_Expression] = Field(min_length=1, max_length=200)


class _Truncated(Section):
    column_lengths: list[_Length] = Field(default_factory=list, max_length=100)
    marks: list[Line] = Field(default_factory=list, max_length=100)


class _RuleFile(Section):
    name: _Name
    #: name → alternatives, any of which `{name}` stands for; they may hold names that come before
    words: dict[str, list[_Expression]] = Field(default_factory=dict, max_length=100)
    placeholders: list[_Rule] = Field(min_length=1, max_length=200)
    #: fewer letters and digits than this are hardly a word
    near_empty_below: int = Field(ge=0, le=1_000)
    truncated: _Truncated = _Truncated()


def parse_rules(raw: Mapping[str, object], *, origin: str, sha256: str) -> ScreeningRules:
    """A rule file as the mapping that its YAML holds.

    :param origin: the file's name, for messages
    :raises ConfigurationError: a key is missing, unknown or wrong, or a pattern is no regular expression
    """
    try:
        file = _RuleFile.model_validate(raw)
    except ValidationError as error:
        # not chained: it holds what was given
        raise ConfigurationError(complaint_about(error, known=_RuleFile, origin=origin)) from None
    words: dict[str, str] = {}
    for name, alternatives in file.words.items():
        words[name] = _any_of(alternatives, words, f"{origin}: `words.{name}`")
    placeholders: dict[str, re.Pattern[str]] = {}
    for rule in file.placeholders:
        if rule.name in placeholders:
            raise ConfigurationError(f"{origin}: two rules are called {rule.name!r}")
        where = f"{origin}: rule {rule.name!r}"
        placeholders[rule.name] = _compiled(_any_of(rule.patterns, words, where), where)
    return ScreeningRules(
        name=file.name,
        sha256=sha256,
        placeholders=placeholders,
        enough_signs=re.compile(rf"(?:[\W_]*[^\W_]){{{file.near_empty_below}}}"),
        column_lengths=frozenset(file.truncated.column_lengths),
        cut_marks=tuple(mark.casefold() for mark in file.truncated.marks),
    )


def _any_of(expressions: Sequence[str], words: Mapping[str, str], where: str) -> str:
    """One expression for several, with words filled in."""

    def fill_in(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise ConfigurationError(
                f"{where}: `{{{match[1]}}}` is none of the `words` above it",
                advice="add it to `words`, or write the expression without it",
            )
        return words[match[1]]

    filled = [_WORD.sub(fill_in, expression) for expression in expressions]
    for expression in filled:
        _compiled(expression, where)
    return f"(?:{'|'.join(filled)})"


def _compiled(expression: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"{where}: an expression is not a regular one: {error}") from None
