"""Reads configuration and prompt files: strict UTF-8, bounded, and of YAML only what cannot be misunderstood.

What a value means is none of its business; `config` judges that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from narrun_async.errors import ConfigurationError

MAX_FILE_BYTES = 1024 * 1024
MAX_DEPTH = 20
#: values and keys together; a configuration has about a hundred
MAX_NODES = 5_000
#: a misindented prompt can turn up as a key: no more of it than this is shown
MAX_KEY_CHARS = 40

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp"))
_NUMBER_TAGS = frozenset({_TAG + "int", _TAG + "float"})
#: 012 is 10 in YAML 1.1, and 12:30 is 750
_MISLEADING_NUMBER = re.compile(r"[-+]?(0[0-9_]+$|[0-9_.]+:)")


def load_text_file(path: Path, *, limit_bytes: int = MAX_FILE_BYTES) -> str:
    """The text of a file, without byte order mark, every line ended by LF.

    :raises ConfigurationError: missing, unreadable, larger than the limit, not UTF-8, or holding NUL characters
    """
    content = _read_bytes(path, limit_bytes)
    return decode_text(content, origin=str(path))


def decode_text(content: bytes, *, origin: str) -> str:
    """What `load_text_file` makes of the bytes of a file.

    :raises ConfigurationError: not UTF-8, or holding NUL characters
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        # not chained: the decoding error holds the file
        raise ConfigurationError(f"{origin}, line {line}: not UTF-8 text", advice="save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigurationError(f"{origin}, line {line}: a NUL character", advice="save the file as plain UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text_reader(directory: Path) -> Callable[[str], str]:
    """A reader of text files whose names are relative to a directory, such as that of the YAML file."""

    def read_text(name: str) -> str:
        return load_text_file(directory / name)

    return read_text


def load_yaml(path: Path) -> dict[str, object]:
    """The mapping that a file holds; see `parse_yaml`.

    :raises ConfigurationError: names the file, the line and, where there is one, the key
    """
    return parse_yaml(load_text_file(path), origin=str(path))


def parse_yaml(text: str, *, origin: str) -> dict[str, object]:
    """The one mapping that a YAML 1.1 text holds, its keys text, its values plain Python values.

    Refused: duplicate and non-text keys, anchors, aliases, merge keys, tags, several documents, and anything too large
    or too deep. Plain words keep their YAML 1.1 meaning (`no` is False, `1e5` is text).

    :param origin: the file's name, for messages
    :raises ConfigurationError: names the file, the line and, where there is one, the key
    """
    with _telling_where(text, origin):
        # the first look at the text, which refuses control characters, happens in the constructor
        loader = _StrictLoader(text)
        return _mapping(_root(loader, origin), loader, "")


def scalar_words(text: str, *, origin: str) -> dict[str, str]:
    """How each scalar is written, by its dotted key; what stands in lists is left out.

    :raises ConfigurationError: as `parse_yaml`
    """
    with _telling_where(text, origin):
        return dict(_words(_root(_StrictLoader(text), origin), ""))


def _words(node: MappingNode, path: str) -> Iterator[tuple[str, str]]:
    for key_node, value_node in node.value:
        dotted = f"{path}.{key_node.value}" if path else str(key_node.value)
        if isinstance(value_node, MappingNode):
            yield from _words(value_node, dotted)
        elif isinstance(value_node, ScalarNode):
            yield dotted, value_node.value


def _root(loader: _StrictLoader, origin: str) -> MappingNode:
    root = loader.get_single_node()
    if root is None:
        raise ConfigurationError(f"{origin}: the file is empty")
    if not isinstance(root, MappingNode):
        raise ConfigurationError(f"{origin}: must be a mapping of sections, such as `experiment:` and `model:`")
    return root


@contextmanager
def _telling_where(text: str, origin: str) -> Iterator[None]:
    """:raises ConfigurationError: in place of what was raised inside"""
    try:
        yield
    except _RefusedError as error:
        at = f", `{error.key}`" if error.key else ""
        raise ConfigurationError(f"{origin}, line {error.line}{at}: {error.problem}", advice=error.advice) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigurationError(f"{origin}, line {line}: a character that YAML does not allow") from None
    except yaml.MarkedYAMLError as error:
        # not chained and without the context: its text quotes the file
        raise ConfigurationError(
            f"{origin}, line {_mark_line(error.problem_mark or error.context_mark)}: {_scanner_problem(error)}"
        ) from None


class _RefusedError(Exception):
    """Valid YAML that this program does not take."""

    def __init__(self, problem: str, *, node_line: int, key: str, advice: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = node_line
        self.key = key
        self.advice = advice


class _StrictLoader(yaml.SafeLoader):
    """Composes nodes while counting them and their depth, and refuses what makes a node appear twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._path: list[str] = []
        self._n_nodes = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        line = _mark_line(event.start_mark)
        with self._inside(index):
            if self.check_event(yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                self._refuse("anchors (&) and aliases (*) are not supported", line, "write the value out, or quote it")
            self._n_nodes += 1
            if self._n_nodes > MAX_NODES:
                self._refuse(f"more than {MAX_NODES:,} values", line)
            if len(self._path) > MAX_DEPTH:
                self._refuse(f"nested more than {MAX_DEPTH} levels deep", line)
            return super().compose_node(parent, index)

    @contextmanager
    def _inside(self, index: object) -> Iterator[None]:
        self._path.append(_shown_key(index.value) if isinstance(index, ScalarNode) else "")
        try:
            yield
        finally:
            self._path.pop()

    def _refuse(self, problem: str, line: int, advice: str = "") -> None:
        raise _RefusedError(problem, node_line=line, key=".".join(filter(None, self._path)), advice=advice)


def _mapping(node: MappingNode, loader: _StrictLoader, path: str) -> dict[str, object]:
    mapping: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = _key(key_node, path)
        dotted = f"{path}.{_shown_key(key)}" if path else _shown_key(key)
        if key in mapping:
            raise _RefusedError("the key appears twice", node_line=_node_line(key_node), key=dotted)
        mapping[key] = _value(value_node, loader, dotted)
    return mapping


def _key(node: Node, path: str) -> str:
    if isinstance(node, ScalarNode) and node.tag == _TAG + "str":
        return str(node.value)
    if isinstance(node, ScalarNode) and node.tag == _TAG + "merge":
        raise _RefusedError("merge keys (<<) are not supported", node_line=_node_line(node), key=path)
    shown = f"{path}.{_shown_key(node.value)}" if isinstance(node, ScalarNode) else path
    raise _RefusedError("a key must be text", node_line=_node_line(node), key=shown.lstrip("."), advice="quote it")


def _value(node: Node, loader: _StrictLoader, path: str) -> object:
    if isinstance(node, MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, loader, path)
    if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
        return [_value(item, loader, path) for item in node.value]
    if not isinstance(node, ScalarNode) or node.tag not in _SCALAR_TAGS:
        raise _RefusedError(
            "tags (!) are not supported",
            node_line=_node_line(node),
            key=path,
            advice="write a plain value, or quote it",
        )
    if node.tag in _NUMBER_TAGS and _MISLEADING_NUMBER.match(node.value):
        raise _RefusedError(
            "YAML takes this for an octal number or for hours and minutes",
            node_line=_node_line(node),
            key=path,
            advice="write the number without leading zeros and colons, or quote it",
        )
    try:
        value: object = loader.construct_object(node)
    except (ValueError, LookupError, OverflowError, yaml.YAMLError):
        # PyYAML converts what merely looks like a date or number without looking whether it can be one
        raise _RefusedError(
            "looks like a number or date and is none", node_line=_node_line(node), key=path, advice="quote it"
        ) from None
    if isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        raise _RefusedError("an escape stands for a character that is no text", node_line=_node_line(node), key=path)
    return value


def _read_bytes(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError:
        raise ConfigurationError("a file name contains a NUL character") from None
    if len(content) > limit_bytes:
        raise ConfigurationError(f"{path}: larger than {limit_bytes:,} bytes", advice="is this the right file?")
    return content


def _node_line(node: Node) -> int:
    return _mark_line(node.start_mark)


def _mark_line(mark: Any) -> int:
    # the stubs know two kinds of mark; both have a line that counts from 0
    return int(mark.line) + 1 if mark else 1


def _scanner_problem(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, yaml.composer.ComposerError):
        return "a second document (---) begins; only one is allowed"
    problem = error.problem or "not valid YAML"
    if "'\\t'" in problem:
        return "a tab where YAML wants blanks"
    return problem


def _shown_key(key: object) -> str:
    text = "".join(character if character.isprintable() else "�" for character in str(key))
    return text if len(text) <= MAX_KEY_CHARS else f"{text[:MAX_KEY_CHARS]}…"
