"""Brings a configuration of the predecessor into the form of today: what is dropped, what is put right, and why.

Pure: it changes no prompt, makes no key effective that had no effect, and takes nothing from a file. What cannot be put
right without knowing what was meant stays as it is, for `parse_config` to say what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from narrun_async.config.complaints import advice_on_key, known_keys
from narrun_async.config.documents import LEGACY_KEYS, Document, variables_out_of_place
from narrun_async.config.sections import provider_kind_of
from narrun_async.config.urls import VARIABLE, sounds_secret

_TEXTS = frozenset(
    {
        "experiment.name", "experiment.author", "experiment.notes", "model.name", "model.provider", "prompt.version",
        "prompt.author", "data.file", "data.sheet", "run.database",
    }
)  # fmt: skip
_FRACTIONS = frozenset({"model.temperature", "model.top_p"})
_WHOLE_NUMBERS = frozenset(
    {"model.max_tokens", "model.max_completion_tokens", "model.seed", "run.seed", "run.max_narratives"}
)
_SWITCHES = frozenset({"run.save_csv_json", "run.resume", "run.retry_errors_only"})
_YES, _NO = frozenset({"true", "yes", "t", "1"}), frozenset({"false", "no", "f", "0"})
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{0,15})?([eE][+-]?[0-9]{1,2})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One key that does not stand in the new form as it stood in the old one."""

    #: dotted
    key: str
    #: one sentence without the value
    why: str
    #: a plain value that has no effect any more, as it was written; empty where it is not to be shown
    was: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigratedConfig:
    """The new form, and what became of what is not in it."""

    #: section → its keys and values, in the order in which they are to be written
    sections: Mapping[str, object] = field(repr=False)
    #: keys that are left out
    dropped: Sequence[Remark]
    #: keys that stand there with another value, for which the old file is refused
    changed: Sequence[Remark]


def migrate_document(
    raw: Mapping[str, object], *, words: Mapping[str, str], environment: Mapping[str, str]
) -> MigratedConfig:
    """The new form of a document.

    :param words: dotted key → how its value is written, for numbers and dates that were meant as text
    :param environment: fills in variables where the predecessor did and we do not, except in prompts
    """
    migration = _Migration(words=words, environment=environment)
    sections = {name: migration.section(name, raw[name]) for name in Document.model_fields if name in raw}
    for name in raw:
        if name not in sections:
            migration.drop_unknown(name)
    return MigratedConfig(sections=sections, dropped=migration.dropped, changed=migration.changed)


class _Migration:
    def __init__(self, *, words: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self._words = words
        self._environment = environment
        self.known = known_keys(Document)
        self.dropped: list[Remark] = []
        self.changed: list[Remark] = []

    def drop(self, key: str, why: str, *, was: str = "") -> None:
        self.dropped.append(Remark(key=key, why=why, was=was))

    def drop_unknown(self, *path: str) -> None:
        advice = advice_on_key(path, self.known)
        self.drop(".".join(path), "no such key" + (f"; {advice}" if advice else ""))

    def section(self, name: str, settings: object) -> object:
        if settings is None:
            self.changed.append(Remark(key=name, why="the section was empty, and has to be a mapping"))
            return {}
        if not isinstance(settings, Mapping):
            return settings
        return {
            key: self._mended(f"{name}.{key}", value) for key, value in settings.items() if self._is_kept(name, key)
        }

    def _is_kept(self, section: str, key: str) -> bool:
        dotted = f"{section}.{key}"
        if section == "run" and key in LEGACY_KEYS:
            self.drop(dotted, f"no effect: {LEGACY_KEYS[key]}", was=self._words.get(dotted, ""))
            return False
        if key not in self.known.get(section, frozenset()):
            self.drop_unknown(section, key)
            return False
        return True

    def _mended(self, key: str, value: object) -> object:
        for mend in (self._filled_in, self._as_text, self._as_number, self._as_switch, self._known_provider):
            value, why = mend(key, value)
            if why:
                self.changed.append(Remark(key=key, why=why))
        return value

    def _filled_in(self, key: str, value: object) -> tuple[object, str]:
        section, _, name = key.partition(".")
        variables = variables_out_of_place({section: {name: value}}).get(key, [])
        is_known = all(self._environment.get(one) and not sounds_secret(one) for one in variables)
        if not variables or not is_known or not isinstance(value, str):
            return value, ""
        shown = ", ".join(f"${{{one}}}" for one in variables)
        filled = VARIABLE.sub(lambda match: self._environment[match.group(1)], value)
        return filled, f"{shown} as the environment had it; a run fills in none here"

    def _as_text(self, key: str, value: object) -> tuple[object, str]:
        if key not in _TEXTS or value is None or isinstance(value, str | Mapping | list):
            return value, ""
        return self._words[key], "was written without quotes, so that YAML took it for a number, a date or a yes/no"

    def _as_number(self, key: str, value: object) -> tuple[object, str]:
        number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value.strip()) else value
        if key in _FRACTIONS and isinstance(value, str) and isinstance(number, float):
            return number, "was a text, and has to be a number"
        if key in _WHOLE_NUMBERS and isinstance(number, float) and number.is_integer():
            return int(number), "has to be a whole number"
        return value, ""

    def _as_switch(self, key: str, value: object) -> tuple[object, str]:
        word = str(value).strip().lower()
        if key not in _SWITCHES or isinstance(value, bool) or word not in _YES | _NO:
            return value, ""
        return word in _YES, "has to be true or false"

    def _known_provider(self, key: str, value: object) -> tuple[object, str]:
        if key != "model.provider" or not isinstance(value, str) or provider_kind_of(value) is not None:
            return value, ""
        return (
            "openai-compatible",
            "had a name that is unknown here; this one means any server with /v1/chat/completions",
        )
