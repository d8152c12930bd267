"""Promises of `parse_envelope` and `stored_raw`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.models import NO_USAGE, Envelope, ErrorCategory, Failure, Usage
from narrun_async.parsing import MAX_BODY_BYTES, parse_answer, parse_envelope, stored_raw

GOLDEN = Path(__file__).parent / "golden_answers"


def body_of(message: object, **choice: object) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": message, **choice}]}).encode()


def unpacked(body: bytes) -> Envelope:
    envelope = parse_envelope(body)
    assert isinstance(envelope, Envelope)
    return envelope


def refused(body: bytes) -> Failure:
    failure = parse_envelope(body)
    assert isinstance(failure, Failure)
    return failure


def test_everything_an_endpoint_says_around_its_answer_is_kept() -> None:
    envelope = unpacked((GOLDEN / "plain.json").read_bytes())
    assert envelope.content.startswith('{"detected": true')
    assert envelope.reasoning == "The text names the husband as the shooter."
    assert envelope.finish_reason == "stop"
    assert envelope.model == "openai/gpt-oss-120b"
    assert envelope.system_fingerprint == "fp_44ad"
    assert envelope.refusal is None
    assert envelope.carries_non_text is False
    assert envelope.usage == Usage(
        prompt_tokens=812, completion_tokens=96, total_tokens=908, cached_tokens=512, reasoning_tokens=41
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b"", "is empty", id="no bytes"),
        pytest.param(b" \r\n", "is empty", id="whitespace"),
        pytest.param((GOLDEN / "page.html").read_bytes(), "HTML", id="html"),
        pytest.param(b"\xef\xbb\xbf  <html>", "HTML", id="html after a byte order mark"),
        pytest.param((GOLDEN / "stream.sse").read_bytes(), "event stream", id="sse"),
        pytest.param(b": keep-alive\n\ndata: {}\n\n", "event stream", id="sse that opens with a comment"),
        pytest.param(b'{"choices": [', "broken or incomplete", id="cut body"),
        pytest.param(b"upstream timed out", "is not JSON", id="plain text"),
        pytest.param(b'{"a": "\xff"}', "UTF-8", id="latin-1"),
        pytest.param('{"choices": []}'.encode("utf-16"), "UTF-8", id="utf-16"),
        pytest.param(b"[]", "no object", id="array"),
        pytest.param(b"null", "no object", id="null"),
        pytest.param(b"{}", "no choices", id="empty object"),
        pytest.param(b'{"choices": []}', "no choices", id="no choice"),
        pytest.param(b'{"choices": ["x"]}', "no choices", id="choice of a wrong type"),
        pytest.param(b'{"choices": {"0": 1}}', "no choices", id="choices of a wrong type"),
        pytest.param(b'{"choices": [{}]}', "no message", id="no message"),
        pytest.param(b'{"choices": [{"message": "x"}]}', "no message", id="message of a wrong type"),
        pytest.param(b'{"choices": [], "choices": []}', "'choices' twice", id="deciding key twice"),
        pytest.param(
            b'{"choices": [{"message": {"content": "a", "content": "b"}}]}', "'content' twice", id="two contents"
        ),
        pytest.param(b'{"usage": {"n": NaN}, "choices": []}', "NaN", id="nan"),
        pytest.param(b'{"usage": -Infinity}', "Infinity", id="infinity"),
        pytest.param(b'{"usage": 1e999}', "beyond every range", id="1e999"),
        pytest.param(b"[" * 100_000, "deeper than 64", id="100,000 open arrays"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deeper than 64", id="100,000 objects deep"),
        pytest.param(b"[" + b"[]," * 300_000 + b"[]]", "deeper than 64", id="too many brackets to count"),
    ],
)
def test_what_is_no_chat_completion_is_a_bad_envelope_that_says_what_it_is(body: bytes, said: str) -> None:
    failure = refused(body)
    assert failure.category is ErrorCategory.BAD_ENVELOPE
    assert said in failure.message


def test_an_error_with_http_200_is_named_by_code_and_type_and_never_quoted() -> None:
    failure = refused((GOLDEN / "error_with_200.json").read_bytes())
    assert failure.category is ErrorCategory.BAD_ENVELOPE
    assert "code model_crashed, type server_error" in failure.message
    assert "neighbour" not in failure.message


@pytest.mark.parametrize(
    "error",
    [
        "the neighbour heard nothing",
        {"message": "the neighbour heard nothing", "code": "the neighbour heard nothing", "type": ["neighbour"]},
        ["neighbour"],
        True,
    ],
    ids=["text", "object", "list", "bool"],
)
def test_an_error_whose_code_is_prose_is_not_quoted_either(error: object) -> None:
    for body in (
        json.dumps({"error": error}),
        json.dumps({"choices": [{"error": error, "message": {"content": "x"}}]}),
    ):
        failure = refused(body.encode())
        assert "error instead of an answer" in failure.message
        assert "neighbour" not in failure.message


def test_a_null_error_beside_choices_is_no_error() -> None:
    body = b'{"error": null, "choices": [{"error": null, "message": {"content": "yes"}}]}'
    assert unpacked(body).content == "yes"


def test_a_body_over_the_cap_is_refused_unread() -> None:
    assert refused(b"[" * (MAX_BODY_BYTES + 1)).category is ErrorCategory.RESPONSE_TOO_LARGE


def test_sixty_four_levels_are_taken_and_sixty_five_are_not() -> None:
    def nested(levels: int) -> bytes:
        # the object itself is the first level
        return b'{"choices": [{"message": {"content": "ok"}}], "x": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    assert unpacked(nested(64)).content == "ok"
    assert "deeper" in refused(nested(65)).message


def test_brackets_inside_strings_are_no_depth() -> None:
    content = '[{"' * 500
    assert unpacked(body_of({"content": content})).content == content


def test_a_repeated_key_that_nobody_reads_is_the_servers_own_affair() -> None:
    assert unpacked(b'{"id": 1, "id": 2, "choices": [{"message": {"content": "ok"}}]}').content == "ok"


@pytest.mark.parametrize(
    ("content", "text", "carries_non_text"),
    [
        ("plain", "plain", False),
        (None, "", False),
        ([], "", False),
        ([{"type": "text", "text": '{"detected"'}, {"type": "text", "text": ": true}"}], '{"detected": true}', False),
        (["a", "b"], "ab", False),
        ([{"type": "output_text", "text": "a"}], "a", False),
        ([{"type": "image_url", "image_url": {"url": "x"}}], "", True),
        ([{"type": "text", "text": 7}, 7], "", True),
        ({"text": "a"}, "", True),
        (7, "", True),
    ],
)
def test_content_is_a_string_nothing_or_parts_that_are_joined(
    content: object, text: str, carries_non_text: bool
) -> None:
    envelope = unpacked(body_of({"content": content}))
    assert (envelope.content, envelope.carries_non_text) == (text, carries_non_text)


def test_thinking_and_refusal_parts_go_where_their_fields_go() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "step one"}]},
        {"type": "reasoning", "text": ", step two"},
        {"type": "refusal", "refusal": "no"},
        {"type": "text", "text": "answer"},
    ]
    envelope = unpacked(body_of({"content": parts}))
    assert (envelope.content, envelope.reasoning, envelope.refusal) == ("answer", "step one, step two", "no")


def test_tool_calls_are_noted_as_something_other_than_text() -> None:
    assert unpacked(body_of({"content": None, "tool_calls": [{"id": "1"}]})).carries_non_text is True
    assert unpacked(body_of({"content": None, "tool_calls": []})).carries_non_text is False


@pytest.mark.parametrize("count", ["12", 12.0, True, -1, 2**63, None, [], {}])
def test_a_token_count_that_is_no_storable_count_is_unknown(count: object) -> None:
    completion = {"choices": [{"message": {"content": ""}}], "usage": {"prompt_tokens": count, "total_tokens": 5}}
    usage = unpacked(json.dumps(completion).encode()).usage
    assert usage == Usage(total_tokens=5)


def test_a_token_count_of_ten_thousand_digits_is_unknown_and_harms_nothing_else() -> None:
    body = (
        b'{"choices": [{"message": {"content": "ok"}}], "usage": {"total_tokens": 5, "prompt_tokens": ' + b"9" * 10_000
    )
    assert unpacked(body + b"}}").usage == Usage(total_tokens=5)


@pytest.mark.parametrize("usage", [None, 5, "5", [], {"prompt_tokens_details": 3, "completion_tokens_details": []}])
def test_usage_of_a_wrong_type_is_no_usage(usage: object) -> None:
    completion = {"choices": [{"message": {"content": ""}}], "usage": usage}
    assert unpacked(json.dumps(completion).encode()).usage == NO_USAGE


def test_wrong_types_in_places_that_only_inform_say_nothing() -> None:
    completion = {
        "model": 5,
        "system_fingerprint": ["x"],
        "choices": [{"message": {"content": "ok", "reasoning": {"a": 1}, "refusal": 3}, "finish_reason": {}}],
    }
    assert unpacked(json.dumps(completion).encode()) == Envelope(content="ok")


def test_reasoning_is_taken_from_either_field() -> None:
    assert unpacked(body_of({"content": "", "reasoning_content": "a"})).reasoning == "a"
    assert unpacked(body_of({"content": "", "reasoning": "b", "reasoning_content": ""})).reasoning == "b"


def test_nothing_that_sqlite_could_not_store_comes_out() -> None:
    bad = "a\ud800b\x00c\U0001f600"
    message = {"content": bad, "reasoning": bad, "refusal": bad}
    completion = {"model": bad, "system_fingerprint": bad, "choices": [{"message": message, "finish_reason": bad}]}
    envelope = unpacked(json.dumps(completion).encode())
    good = "a\ufffdb\ufffdc\U0001f600"
    assert (envelope.content, envelope.reasoning, envelope.refusal) == (good, good, good)
    assert (envelope.model, envelope.system_fingerprint, envelope.finish_reason) == (good, good, good)


def test_a_name_that_is_none_is_cut() -> None:
    model = unpacked(json.dumps({"model": "m" * 10_000, "choices": [{"message": {"content": ""}}]}).encode()).model
    assert model is not None
    assert len(model) == 200


def test_no_answer_shows_in_a_repr() -> None:
    envelope = unpacked((GOLDEN / "plain.json").read_bytes())
    assert "husband" not in repr(envelope)
    assert "husband" not in repr(parse_answer(envelope))


@given(st.binary(max_size=400))
def test_parsing_is_total_over_bytes(body: bytes) -> None:
    envelope = parse_envelope(body)
    if isinstance(envelope, Envelope):
        parse_answer(envelope)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "text",
                    "type",
                    "error",
                    "code",
                    "usage",
                    "prompt_tokens",
                    "reasoning",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(JSON_VALUES)
def test_parsing_is_total_over_json(value: object) -> None:
    parse_envelope(json.dumps(value).encode())
    envelope = parse_envelope(
        json.dumps({"choices": [{"message": {"content": value}, "finish_reason": value}]}).encode()
    )
    if isinstance(envelope, Envelope):
        parse_answer(envelope)


@given(JSON_VALUES)
def test_everything_unpacked_can_be_encoded(value: object) -> None:
    envelope = parse_envelope(json.dumps({"choices": [{"message": {"content": value, "reasoning": value}}]}).encode())
    if isinstance(envelope, Envelope):
        for text in (envelope.content, envelope.reasoning or ""):
            assert "\x00" not in text
            text.encode()


def test_raw_text_is_storable_and_never_longer_than_asked() -> None:
    assert stored_raw(b'{"a": 1}') == '{"a": 1}'
    assert stored_raw(b"a\x00b\xffc") == "a\ufffdb\ufffdc"
    assert stored_raw(b"x" * 100, limit_bytes=10) == "x" * 10
    assert stored_raw("ä".encode() * 10, limit_bytes=5) == "ää"
    assert stored_raw(b"x" * 70_000) == "x" * 65_536


@given(st.binary(max_size=60), st.integers(0, 60))
def test_raw_text_is_total_over_bytes(body: bytes, limit_bytes: int) -> None:
    text = stored_raw(body, limit_bytes)
    assert "\x00" not in text
    assert len(text) <= limit_bytes
    text.encode()
