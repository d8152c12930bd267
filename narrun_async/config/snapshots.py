"""Owns the snapshot: the frozen sections as one canonical text, its hash, the way back, and what differs between two.

The text is what an experiment was created with; it holds `${NAME}` as written and never a key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from pydantic import ValidationError

from narrun_async.config.complaints import complaint_about
from narrun_async.config.sections import ExperimentConfig, FrozenSections, OperationalSettings
from narrun_async.errors import ConfigurationError

#: a longer value, or one of several lines, is shown by its length and hash
MAX_SHOWN_CHARS = 100
_ALWAYS_HIDDEN = frozenset({"prompt.system_prompt", "prompt.user_template"})
_ABSENT = object()
#: how a setting without a value is shown
NOT_SET = "not set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One setting that differs; both sides ready to be shown, prompts and long texts by length and hash only."""

    #: dotted, such as `model.temperature`
    key: str
    stored: str
    current: str
    #: 1-based first line that differs, for texts that are not shown
    first_differing_line: int | None = None

    def __str__(self) -> str:
        where = "" if self.first_differing_line is None else f" (first difference in line {self.first_differing_line})"
        return f"{self.key}: {self.stored} → {self.current}{where}"


def snapshot_json(config: ExperimentConfig) -> str:
    """The frozen sections as canonical JSON: sections and settings sorted, no white space, letters as they are.

    A mapping that is sent keeps the order in which it was written: a model answers in that of a schema's properties.
    """
    frozen = config.model_dump(mode="json", include=set(FrozenSections.model_fields))
    in_order = {name: settings and dict(sorted(settings.items())) for name, settings in sorted(frozen.items())}
    return json.dumps(in_order, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def snapshot_sha256(config: ExperimentConfig) -> str:
    """SHA-256 hex of the UTF-8 bytes of `snapshot_json`."""
    return _sha256(snapshot_json(config))


def config_from_snapshot(snapshot: str, *, operational: OperationalSettings | None = None) -> ExperimentConfig:
    """The configuration that a snapshot was made from, with the operational settings of today.

    A key that a later version added has its default.

    :raises ConfigurationError: the text is no snapshot that this version understands
    """
    try:
        sections = FrozenSections.model_validate(json.loads(snapshot))
    except ValidationError as error:
        # not chained: the validation error holds the prompts
        complaint = complaint_about(error, known=FrozenSections, origin="the stored configuration")
        raise ConfigurationError(complaint) from None
    except (ValueError, RecursionError):
        raise ConfigurationError("the stored configuration is not valid JSON") from None
    frozen = {name: getattr(sections, name) for name in FrozenSections.model_fields}
    return ExperimentConfig(**frozen, operational=operational or OperationalSettings())


def diff_snapshots(stored: str, current: str) -> list[Difference]:
    """Every setting that differs, in key order; empty when both mean the same.

    Both are read first, so a key that one of them lacks and the other has at its default is no difference.

    :raises ConfigurationError: one of the texts is no snapshot
    """
    before, after = _settings(stored), _settings(current)
    return [
        _difference(key, before.get(key, _ABSENT), after.get(key, _ABSENT))
        for key in sorted(before.keys() | after.keys())
        if not _same(before.get(key, _ABSENT), after.get(key, _ABSENT))
    ]


def settings_of_snapshot(snapshot: str) -> dict[str, str]:
    """Every setting that is set, by its dotted key, as a short text; prompts and long texts by the first digits of
    their SHA-256.

    :raises ConfigurationError: the text is no snapshot
    """
    return {key: _shortest(key, value) for key, value in _settings(snapshot).items()}


def digest_text(text: str) -> str:
    """A text that is not shown, by its SHA-256."""
    return f"sha256 {_sha256(text)[:8]}"


def _shortest(key: str, value: object) -> str:
    if isinstance(value, str):
        is_hidden = key in _ALWAYS_HIDDEN or len(value) > MAX_SHOWN_CHARS or "\n" in value
        return digest_text(value) if is_hidden else value
    return _shown(value, hidden=False)


def _same(one: object, other: object) -> bool:
    # 1 == True in Python, also inside lists; as JSON they differ
    if one is _ABSENT or other is _ABSENT:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _settings(snapshot: str) -> dict[str, object]:
    """Dotted key → value; a setting that is null or an empty mapping is not set, and is not among them."""
    sections = json.loads(snapshot_json(config_from_snapshot(snapshot)))
    return {
        key: value
        for section, settings in sections.items()
        for name, setting in (settings or {}).items()
        if setting not in (None, {})
        for key, value in _flat(setting, f"{section}.{name}")
    }


def _flat(value: object, key: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}")
    else:
        yield key, value


def _difference(key: str, stored: object, current: object) -> Difference:
    hidden = key in _ALWAYS_HIDDEN or any(
        isinstance(value, str) and (len(value) > MAX_SHOWN_CHARS or "\n" in value) for value in (stored, current)
    )
    line = None
    if hidden and isinstance(stored, str) and isinstance(current, str):
        line = _first_differing_line(stored, current)
    return Difference(
        key=key, stored=_shown(stored, hidden), current=_shown(current, hidden), first_differing_line=line
    )


def _shown(value: object, hidden: bool) -> str:
    if value is _ABSENT:
        return NOT_SET
    if hidden and isinstance(value, str):
        return f"{len(value):,} characters, sha256 {_sha256(value)[:12]}…"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS + 2 else f"{text[:MAX_SHOWN_CHARS]}…"


def _first_differing_line(one: str, other: str) -> int:
    pairs = zip_longest(one.split("\n"), other.split("\n"))
    return next(number for number, (left, right) in enumerate(pairs, start=1) if left != right)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
