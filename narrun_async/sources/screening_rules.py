"""Reads the file that says what a placeholder is: a person's own, or the one that comes with the program."""

from __future__ import annotations

from pathlib import Path

from narrun_async.screening import ScreeningRules, parse_rules
from narrun_async.sources.files import file_checksum
from narrun_async.sources.yaml_file import load_yaml

PACKAGED_RULES = Path(__file__).with_suffix(".yaml")


def load_rules(path: Path | None = None) -> ScreeningRules:
    """Takes 20 ms, most of it for the expressions of the packaged file.

    :param path: None: the packaged rules
    :raises ConfigurationError: the file is missing, or cannot be understood
    """
    file = path or PACKAGED_RULES
    raw = load_yaml(file)
    return parse_rules(raw, origin=str(file), sha256=file_checksum(file))
