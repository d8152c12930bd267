"""Writes a configuration as YAML that `yaml_file` reads back to the same values; texts of several lines as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import yaml

#: what a literal block keeps byte for byte; line ends of other kinds and characters that YAML escapes are no part of it
_PLAIN = re.compile(r"[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
_INDENT = "  "
#: no line is ever folded
_WIDTH = 1 << 30


def write_yaml(
    sections: Mapping[str, Mapping[str, object]], *, heading: str, comments: Mapping[str, Sequence[str]]
) -> str:
    """The text of a file: a heading, then section after section, each key on its line.

    :param comments: dotted key → lines above it; those of a key that is not there stand at the end of its section, or
        of the file
    """
    lines = [f"# {_comment(heading)}"]
    left = dict(comments)
    for name, settings in sections.items():
        lines += _comment_lines(left.pop(name, ()), "")
        lines.append(f"{name}:" if settings else f"{name}: {{}}")
        for key, value in settings.items():
            lines += _comment_lines(left.pop(f"{name}.{key}", ()), _INDENT)
            lines += _setting_lines(key, value)
        for key in [key for key in left if key.startswith(f"{name}.")]:
            lines += _comment_lines(left.pop(key), _INDENT)
    for remaining in left.values():
        lines += _comment_lines(remaining, "")
    return "\n".join(lines) + "\n"


def _setting_lines(key: str, value: object) -> list[str]:
    literal = _literal_lines(value) if isinstance(value, str) and "\n" in value else None
    name = f"{_INDENT}{_scalar(key)}:"
    if literal is None:
        return [f"{name} {_scalar(value)}"]
    indicator, *rest = literal
    return [f"{name} {indicator}", *rest]


def _literal_lines(text: str) -> list[str] | None:
    """A text as a literal block, its indicator first; None where a block would not give it back."""
    if not text.strip() or not _PLAIN.fullmatch(text):
        return None
    # A first line that is blank or begins with one would be taken for the indentation.
    indentation = str(len(_INDENT)) if text[0] in " \t\n" else ""
    body = text
    chomping = "-"
    if text.endswith("\n"):
        body = text[:-1]
        chomping = "+" if body.endswith("\n") else ""
    return [f"|{indentation}{chomping}", *(f"{_INDENT * 2}{line}" if line else "" for line in body.split("\n"))]


class _Dumper(yaml.SafeDumper):
    """One line a value, and no anchors: what appears twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # In quotes of the other kind a line break would be a line break.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)


def _scalar(value: object) -> str:
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, sort_keys=False, width=_WIDTH)
    return text.removesuffix("\n").removesuffix("\n...")


def _comment_lines(comments: Sequence[str], indent: str) -> Iterator[str]:
    return (f"{indent}# {_comment(comment)}" for comment in comments)


def _comment(text: str) -> str:
    """On one line: a line break would end the comment and begin a setting."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
