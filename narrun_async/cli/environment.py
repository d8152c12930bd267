"""Reads the environment variables of the command line, and refuses values that could mean two things."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from narrun_async.config.sections import MAX_CONCURRENCY
from narrun_async.errors import UsageError

_TRUE = frozenset({"1", "true", "yes"})
_FALSE = frozenset({"", "0", "false", "no"})
#: variables that begin with NARRUN_ and have a meaning; others are slips of the keyboard
KNOWN_VARIABLES = frozenset({"NARRUN_CONFIG"})


def read_switch(name: str, environment: Mapping[str, str] = os.environ) -> bool | None:
    """A yes/no variable; None where it is not set.

    :raises UsageError: it is neither
    """
    value = environment.get(name)
    if value is None:
        return None
    if value.strip().lower() in _TRUE:
        return True
    if value.strip().lower() in _FALSE:
        return False
    raise UsageError(f"{name} must be 1, true, yes, 0, false or no")


def read_text(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """A variable that is set and not blank."""
    return environment.get(name, "").strip() or None


def read_concurrency(text: str | None) -> int | Literal["auto"] | None:
    """A number of calls, or `auto`; None where nothing was said.

    :raises UsageError: it is neither
    """
    if text is None or text == "auto":
        return text  # type: ignore[return-value]  # a comparison does not narrow str to Literal
    # the length first: Python refuses to convert thousands of digits
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_CONCURRENCY):
        raise UsageError(f"a concurrency is a number from 1 to {MAX_CONCURRENCY}, or `auto`")
    return int(text)


def refuse_unknown(environment: Mapping[str, str] = os.environ) -> None:
    """:raises UsageError: a NARRUN_… variable that this program does not know"""
    unknown = sorted(name for name in environment if name.startswith("NARRUN_") and name not in KNOWN_VARIABLES)
    if unknown:
        known = ", ".join(sorted(KNOWN_VARIABLES))
        raise UsageError(f"unknown environment variable {unknown[0]}", advice=f"known: {known}")
