"""The canonical form of a text."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.models import text_sha256
from narrun_async.sources.canonical import canonical_text, decode_excel_escapes


@pytest.mark.fault("W12")
@pytest.mark.parametrize(
    ("raw", "text", "is_repaired"),
    [
        ("plain, naïve, 😀\tand\nmore ", "plain, naïve, 😀\tand\nmore ", False),
        ("a\r\nb\rc\n", "a\nb\nc\n", False),
        ("a\0b", "a\ufffdb", True),
        ("a\x0b\x1f\x7fb", "a\ufffd\ufffd\ufffdb", True),
        ("a\ud800b", "a\ufffdb", True),
        ("a\udc00\ud800b", "a\ufffd\ufffdb", True),
        ("a\ud83d\ude00b", "a😀b", True),
    ],
    ids=["untouched", "line-ends", "nul", "controls", "lone-surrogate", "surrogates-in-wrong-order", "surrogate-pair"],
)
def test_controls_and_surrogates_are_replaced_and_line_ends_unified(raw: str, text: str, is_repaired: bool) -> None:
    assert canonical_text(raw) == (text, is_repaired)


@pytest.mark.fault("W12")
@given(st.text(st.characters(exclude_categories=())))
def test_a_canonical_text_can_be_stored_and_is_its_own_canonical_text(raw: str) -> None:
    text, _ = canonical_text(raw)
    assert text.encode().decode() == text
    assert "\0" not in text and "\r" not in text
    assert canonical_text(text) == (text, False)


@pytest.mark.fault("W11")
@pytest.mark.parametrize(
    ("raw", "decoded"),
    [
        ("a_x000D_\nb", "a\r\nb"),
        ("_x005F_x000D_", "_x000D_"),
        ("_x0041__x0042_", "AB"),
        ("_x00e9_", "é"),
        ("_x00_ _xZZZZ_ max_x", "_x00_ _xZZZZ_ max_x"),
    ],
    ids=["carriage-return", "protected-escape", "adjacent", "lower-case", "no-escape"],
)
def test_escapes_of_excel_are_decoded_once(raw: str, decoded: str) -> None:
    assert decode_excel_escapes(raw) == decoded


def test_the_hash_is_that_of_the_utf8_bytes() -> None:
    assert text_sha256("naïve") == hashlib.sha256(b"na\xc3\xafve").hexdigest()
