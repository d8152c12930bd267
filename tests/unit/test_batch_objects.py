"""Promises of reading what a Batch API says, and of keeping the key out of what it sends."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.providers.batch_objects import read_object, read_page, remote_batch, remote_file
from narrun_async.providers.redaction import Redaction

BATCH = {
    "id": "batch_1",
    "status": "completed",
    "input_file_id": "file-1",
    "output_file_id": "file-2",
    "error_file_id": "",
    "request_counts": {"total": 9, "completed": 7, "failed": 2},
    "metadata": {"narrun_token": "t", "n": 5},
}


def test_a_batch_says_its_status_its_files_and_its_counts() -> None:
    batch = remote_batch(BATCH)
    assert batch is not None
    assert (batch.remote_batch_id, batch.status, batch.input_file_id) == ("batch_1", "completed", "file-1")
    assert (batch.n_completed, batch.n_failed) == (7, 2)
    assert batch.metadata == {"narrun_token": "t"}


def test_an_empty_id_means_that_there_is_no_such_file() -> None:
    batch = remote_batch(BATCH)
    assert batch is not None
    assert (batch.output_file_id, batch.error_file_id) == ("file-2", None)


def test_why_a_file_was_refused_is_told_by_codes_and_lines_never_by_sentences() -> None:
    complaints = [
        {"code": "invalid_json_line", "line": 3, "message": "narrative-canary"},
        {"code": "a sentence with a narrative-canary", "line": 4},
        {"code": "token_limit_exceeded", "line": None, "message": "narrative-canary"},
        "narrative-canary",
    ]
    batch = remote_batch(BATCH | {"errors": {"object": "list", "data": complaints}})
    assert batch is not None
    assert batch.complaints == ("invalid_json_line in line 3", "token_limit_exceeded")
    assert "canary" not in repr(batch)


@pytest.mark.parametrize(
    "broken", [{}, {"id": "x"}, {"id": 5, "status": "completed"}, {"id": "x", "status": "two words"}]
)
def test_a_batch_without_an_id_or_a_status_is_none(broken: dict[str, object]) -> None:
    assert remote_batch(broken) is None


def test_a_file_says_its_name_and_size() -> None:
    file = remote_file({"id": "file-1", "filename": "a.jsonl", "bytes": 7, "status": "processed"})
    assert file is not None
    assert (file.file_id, file.name, file.n_bytes, file.status) == ("file-1", "a.jsonl", 7, "processed")
    assert remote_file({"filename": "a.jsonl"}) is None
    without = remote_file({"id": "file-1", "bytes": None})
    assert without is not None
    assert (without.name, without.n_bytes, without.status) == (None, None, None)


def page(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_a_page_says_whether_there_are_more_and_where_they_begin() -> None:
    entries = [{"id": "a"}, {"id": "b"}]
    said = read_page(page(data=entries, has_more=True, last_id="b"), page_size=100)
    assert said is not None
    assert (said.has_more, said.last_id) == (True, "b")
    unsaid = read_page(page(data=entries, has_more=True), page_size=100)
    assert unsaid is not None
    assert (unsaid.has_more, unsaid.last_id) == (True, "b")


def test_where_a_provider_does_not_say_a_full_page_means_that_there_are_more() -> None:
    entries = [{"id": "a"}, {"id": "b"}]
    full, short = (read_page(page(data=entries), page_size=size) for size in (2, 3))
    assert full is not None and short is not None
    assert (full.has_more, short.has_more) == (True, False)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": {}}', b"<html>", b"\xff", b"[" * 100_000])
def test_what_is_no_page_is_none(body: bytes) -> None:
    assert read_page(body, page_size=100) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(BATCH)), inner, max_size=5),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from([*BATCH, "errors", "filename", "bytes", "data", "has_more"]), _JSON))
def test_nothing_that_is_said_makes_the_reading_fail(value: dict[str, object]) -> None:
    remote_batch(value)
    remote_file(value)
    read_page(json.dumps(value).encode("utf-8", "surrogatepass"), page_size=2)


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reading_fail(body: bytes) -> None:
    read_object(body)
    read_page(body, page_size=1)


SECRET = b"sk-0123456789abcdef"


@given(
    st.lists(st.sampled_from([SECRET, b"x", b"sk-", b"sk-0123456789abcde", b"\n", b"text "]), max_size=12),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_the_key_is_taken_out_wherever_the_pieces_are_cut(parts: list[bytes], cuts: list[int]) -> None:
    text = b"".join(parts)
    written: list[bytes] = []
    redaction = Redaction(written.append, (SECRET,))
    for begin, end in pairwise([0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]):
        redaction.write(text[begin:end])
    redaction.finish()
    assert b"".join(written) == text.replace(SECRET, b"[key]")


def test_without_a_key_pieces_pass_as_they_come() -> None:
    written: list[bytes] = []
    redaction = Redaction(written.append, ())
    redaction.write(b"one")
    assert written == [b"one"]
    redaction.finish()
    assert written == [b"one"]
