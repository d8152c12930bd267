"""Reading YAML: only what cannot be misunderstood, and one sentence for the rest."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.errors import ConfigurationError
from narrun_async.sources.yaml_file import MAX_FILE_BYTES, load_text_file, load_yaml, text_reader


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "exp.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(tmp_path: Path, content: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_yaml(written(tmp_path, content))
    assert caught.value.exit_code == 78
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "exp.yaml" in str(caught.value)
    return str(caught.value)


def test_plain_values_keep_their_yaml_1_1_meaning(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "\ufeffa:\r\n  on_: no\r\n  n: 5\r\n  f: 0.5\r\n  s: 1e5\r\n  z:\r\n  l: [1, x]\r\nt: |\r\n  one\r\n  two\r\n",
    )
    assert load_yaml(path) == {
        "a": {"on_": False, "n": 5, "f": 0.5, "s": "1e5", "z": None, "l": [1, "x"]},
        "t": "one\ntwo\n",
    }


BOMB = "a: &a [x,x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)},*{chr(97 + n)}]\n" for n in range(20))


@pytest.mark.fault("Y01", "Y02", "Y03", "Y04", "Y05", "Y06", "Y07", "Y08")
@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        pytest.param("run:\n  seed: 1\n  seed: 2\n", ["line 3", "`run.seed`", "twice"], id="duplicate-key"),
        pytest.param("a: 1\nb: 2\na: 3\n", ["line 3", "`a`", "twice"], id="duplicate-section"),
        pytest.param('a: 1\n"a": 3\n', ["line 2", "`a`", "twice"], id="duplicate-key-quoted"),
        pytest.param("a: &x 1\n", ["line 1", "`a`", "anchors"], id="anchor"),
        pytest.param("a:\n  b: *x\n", ["line 2", "`a.b`", "aliases"], id="alias"),
        pytest.param(BOMB, ["line 1", "anchors"], id="alias-bomb"),
        pytest.param("a: &a [*a]\n", ["line 1", "anchors"], id="recursive-alias"),
        pytest.param("&r {a: 1}\n", ["line 1", "anchors"], id="anchor-on-root"),
        pytest.param("a: {<<: {b: 1}}\n", ["line 1", "merge"], id="merge-key"),
        pytest.param("a: 1\n---\nb: 2\n", ["line 2", "second document"], id="two-documents"),
        pytest.param("- a\n- b\n", ["mapping of sections"], id="list-root"),
        pytest.param("just words\n", ["mapping of sections"], id="text-root"),
        pytest.param("", ["empty"], id="empty"),
        pytest.param("# nothing\n", ["empty"], id="only-a-comment"),
        pytest.param("a: " + "[" * 10_000, ["line 1", "20 levels"], id="unclosed-brackets"),
        pytest.param("a: " + "{b: " * 30 + "1" + "}" * 30, ["line 1", "20 levels"], id="deep-mappings"),
        pytest.param("a: [" + "1," * 6000 + "1]", ["line 1", "`a`", "5,000 values"], id="too-many-values"),
        pytest.param("a: 1\nb: x\0y\n", ["line 2", "NUL"], id="nul"),
        pytest.param("a: 1\nb: x\x07y\n", ["line 2", "character"], id="control-character"),
        pytest.param('a: "x\\0y"\n', ["line 1", "`a`", "escape"], id="escaped-nul"),
        pytest.param('a: "\\ud800"\n', ["line 1", "`a`", "escape"], id="escaped-surrogate"),
        pytest.param("a: 1\nb: caf\xe9\n".encode("latin-1"), ["line 2", "UTF-8"], id="latin-1"),
        pytest.param("a: 1\n".encode("utf-16"), ["line 1", "UTF-8"], id="utf-16"),
        pytest.param("a:\n\tb: 1\n", ["line 2", "tab"], id="tab"),
        pytest.param("a: [1\nb: 2\n", ["line 2"], id="unclosed-list"),
        pytest.param("no: 1\n", ["line 1", "`no`", "key must be text"], id="key-that-is-a-boolean"),
        pytest.param("a:\n  5: 1\n", ["line 2", "`a.5`", "key must be text"], id="key-that-is-a-number"),
        pytest.param("? [a, b]\n: 1\n", ["line 1", "key must be text"], id="key-that-is-a-list"),
        pytest.param("a: !!python/object/apply:os.getcwd []\n", ["line 1", "`a`", "tags"], id="python-tag"),
        pytest.param("a: !!binary aGk=\n", ["line 1", "`a`", "tags"], id="binary-tag"),
        pytest.param("a: =\n", ["line 1", "`a`", "tags"], id="value-tag"),
        pytest.param("a: 2024-13-45\n", ["line 1", "`a`", "none"], id="impossible-date"),
        pytest.param("a: 0x_\n", ["line 1", "`a`", "none"], id="impossible-hexadecimal"),
        pytest.param("a: !!int x\n", ["line 1", "`a`", "none"], id="not-the-number-it-claims"),
        pytest.param("a: " + "9" * 5000 + "\n", ["line 1", "`a`", "none"], id="five-thousand-digits"),
        pytest.param("a: 012\n", ["line 1", "`a`", "octal"], id="octal"),
        pytest.param("a: 12:30:45\n", ["line 1", "`a`", "hours and minutes"], id="sexagesimal"),
        pytest.param("%YAML 9.9\n---\na: 1\n", ["line 1"], id="wrong-version"),
    ],
)
def test_what_could_be_misunderstood_is_refused_by_line(
    tmp_path: Path, content: str | bytes, fragments: list[str]
) -> None:
    message = refusal(tmp_path, content)
    assert all(fragment in message for fragment in fragments), message


@pytest.mark.parametrize("number", ["0", "-3", "0.5", "20_946", "0.0", "-0.25", ".5", "10"])
def test_plain_numbers_are_taken(tmp_path: Path, number: str) -> None:
    assert load_yaml(written(tmp_path, f"a: {number}\n")) == {"a": float(number)}


def test_a_message_quotes_no_more_of_the_file_than_a_key(tmp_path: Path) -> None:
    canary = "canary in the prompt"
    for content in (f'a: "{canary}\n', f"a: {canary}: b\n", f"a: [{canary}\n", f"a: |\n {canary}\nb\n"):
        assert "canary" not in refusal(tmp_path, content)


def test_a_long_key_is_shortened_and_escape_codes_never_reach_a_terminal(tmp_path: Path) -> None:
    message = refusal(tmp_path, f'? "\\e[31m{"k" * 100}"\n: 1\n? "\\e[31m{"k" * 100}"\n: 2\n')
    assert "\x1b" not in message
    assert "k" * 41 not in message


@pytest.mark.fault("Y05", "Y07")
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: ("a: " + text).encode("utf-8", "replace")))
def test_any_bytes_end_as_a_mapping_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigurationError):
        assert isinstance(load_yaml(path), dict)


@pytest.mark.fault("Y06")
def test_a_missing_file_a_directory_and_a_giant_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        load_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_yaml(tmp_path)
    with pytest.raises(ConfigurationError, match="larger than 1,048,576 bytes"):
        load_yaml(written(tmp_path, b"#" * (MAX_FILE_BYTES + 1)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_read_permission_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a: 1\n")
    path.chmod(0)
    with pytest.raises(ConfigurationError, match=r"exp\.yaml.*Permission denied"):
        load_yaml(path)


def test_text_files_lose_only_the_byte_order_mark_and_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes("\ufeff a\r\nb\rc ${X} ü \n\n".encode())
    assert load_text_file(path) == " a\nb\nc ${X} ü \n\n"
    with pytest.raises(ConfigurationError, match="larger than 5 bytes"):
        load_text_file(path, limit_bytes=5)


def test_text_reader_is_relative_to_its_directory(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "p.txt").write_text("hello")
    read_text = text_reader(tmp_path)
    assert read_text("prompts/p.txt") == "hello"
    assert read_text(str(tmp_path / "prompts" / "p.txt")) == "hello"
    with pytest.raises(ConfigurationError, match="no such file"):
        read_text("absent.txt")
    with pytest.raises(ConfigurationError, match="NUL"):
        read_text("a\0b")
