"""Puts validation errors into words: the key, what is wrong with it, and the key that was probably meant.

No value that was given is repeated; the validation error itself, which holds them, must not be chained.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from narrun_async.config.advice import EXPLAINED, MEANT

#: complaints in one sentence; the rest is counted
MAX_COMPLAINTS = 5
#: a misindented prompt can turn up as a key: no more of it than this is shown
MAX_KEY_CHARS = 40

#: keys that are read before validation, so that no model knows them
_FILE_KEYS = frozenset({"system_prompt_file", "user_template_file"})

_MARKS = frozenset({"[key]", "[mapping]", "[mode]"})

_PHRASES = {
    "missing": "is missing",
    "string_type": "must be text (in quotes, if it looks like a number, a date or yes/no)",
    "string_unicode": "must be valid Unicode text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number (YAML takes 1e5 for text; write 100000.0)",
    "finite_number": "must be a finite number",
    "model_type": "must be a section, a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "string_pattern_mismatch": "must be a name of letters, digits and underscores",
    "invalid-json-value": "must consist of text, finite numbers, true/false, lists and mappings",
}
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def complaint_about(error: ValidationError, *, known: type[BaseModel], origin: str) -> str:
    """One sentence for the whole error.

    :param known: the model whose fields are the keys that exist
    """
    keys = known_keys(known)
    sentences = list(dict.fromkeys(_sentence(detail, keys) for detail in error.errors(include_url=False)))
    shown = sentences[:MAX_COMPLAINTS]
    if len(sentences) > MAX_COMPLAINTS:
        shown.append(f"and {len(sentences) - MAX_COMPLAINTS} more")
    return f"{origin}: {'; '.join(shown)}"


def _sentence(detail: ErrorDetails, keys: Mapping[str, frozenset[str]]) -> str:
    path = tuple(str(part) for part in detail["loc"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _complaint_about_key(path, keys)
    # marks for the key of a mapping and for the kind of a value; an unknown key may itself be called so
    path = tuple(part for part in path if part not in _MARKS)
    context = detail.get("ctx", {})
    if kind == "value_error":
        problem = str(context["error"])
        if not path:
            return problem
        return f"{dotted(path)}{': ' if problem.startswith('`') else ' '}{problem}"
    if kind == "missing" and len(path) == 1:
        return f"section {dotted(path)} is missing"
    if kind == "literal_error":
        return f"{dotted(path)} must be {context['expected']}".replace("'", "`")
    limits = [f"{words} {context[name]:,}".removesuffix(".0") for name, words in _LIMITS.items() if name in context]
    return f"{dotted(path)} {'must be ' + limits[0] if limits else _PHRASES.get(kind, 'is not valid here')}"


def _complaint_about_key(path: tuple[str, ...], keys: Mapping[str, frozenset[str]]) -> str:
    advice = advice_on_key(path, keys)
    if path[-1].lower() in EXPLAINED:
        return f"{dotted(path)}: {advice}"
    return f"unknown key {dotted(path)}" + (f" ({advice})" if advice else "")


def advice_on_key(path: tuple[str, ...], keys: Mapping[str, frozenset[str]]) -> str:
    """What to do in place of a key that does not exist, as far as its name tells; empty where it tells nothing.

    :param keys: of `known_keys`
    """
    name = path[-1].lower()
    if name in EXPLAINED:
        return EXPLAINED[name]
    meant: list[tuple[str, ...]] = [(section, name) for section, names in keys.items() if section and name in names]
    if not meant and name in MEANT:
        meant = [(MEANT[name],)]
    if not meant and len(path) <= 2:
        section = path[0] if len(path) == 2 else ""
        meant = [(*path[:-1], near) for near in get_close_matches(name, sorted(keys.get(section, ())), n=1)]
    return f"did you mean {' or '.join(map(dotted, meant))}?" if meant else ""


def dotted(path: tuple[str, ...]) -> str:
    """A key as people are shown it, whatever the file called it."""
    parts = [part if len(part) <= MAX_KEY_CHARS else f"{part[:MAX_KEY_CHARS]}…" for part in path]
    # a key can be any text in YAML; a line break or escape code in it must not reach a terminal
    return "`" + "".join(c if c.isprintable() else "�" for c in ".".join(parts)) + "`"


def known_keys(known: type[BaseModel]) -> dict[str, frozenset[str]]:
    """Section → its keys; the empty name stands for the top level."""
    keys = {"": frozenset(known.model_fields)}
    for name, field in known.model_fields.items():
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                keys[name] = frozenset(candidate.model_fields) | (_FILE_KEYS if name == "prompt" else frozenset())
    return keys
