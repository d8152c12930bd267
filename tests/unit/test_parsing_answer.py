"""Promises of `parse_answer`: what counts as an answer, which tier took it, and which failure is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from narrun_async.models import Detection, Envelope, ErrorCategory, Failure, Verdict
from narrun_async.parsing import parse_answer, parse_envelope
from narrun_async.parsing.texts import clean_text

GOLDEN = Path(__file__).parent / "golden_answers"
YES = '{"detected": true, "confidence": 0.9, "indicators": ["a"], "rationale": "r"}'
NO = '{"detected": false, "confidence": 0.2, "indicators": [], "rationale": "n"}'


def read(content: str, **envelope: object) -> Verdict:
    return parse_answer(Envelope(content=content, **envelope))  # type: ignore[arg-type]


def detection(verdict: Verdict) -> Detection:
    assert isinstance(verdict, Detection), verdict
    return verdict


def category(verdict: Verdict) -> ErrorCategory:
    assert isinstance(verdict, Failure), verdict.parse_method
    return verdict.category


def golden(name: str) -> Verdict:
    envelope = parse_envelope((GOLDEN / name).read_bytes())
    assert isinstance(envelope, Envelope)
    return parse_answer(envelope)


# --- the answers that the models really gave -------------------------------------------------------------------------


def test_a_plain_object_is_read_in_full() -> None:
    assert golden("plain.json") == Detection(
        detected=True,
        confidence=0.92,
        indicators=("shot by husband", "prior threats"),
        rationale="The husband had threatened her before.",
        reasoning_steps="The text names the husband as the shooter.",
        parse_method="json",
    )


def test_the_final_channel_answers_and_the_other_channels_are_thoughts() -> None:
    found = detection(golden("harmony_final.json"))
    assert (found.detected, found.confidence, found.parse_method) == (True, 0.8, "harmony:json")
    assert found.reasoning_steps == 'A draft would be {"detected": false}. But the partner is named.'


def test_words_are_repaired_inside_the_confidence_value_only() -> None:
    found = detection(golden("confidence_words.json"))
    assert (found.detected, found.confidence, found.parse_method) == (True, 0.9, "json+confidence_fix")
    assert found.indicators == ("estranged wife", "custody dispute")
    assert found.rationale == "She had left him. It was his 0. nine mile walk."


def test_an_answer_filed_under_reasoning_is_found_and_says_so() -> None:
    found = detection(golden("reasoning_only.json"))
    assert (found.detected, found.confidence, found.parse_method) == (False, 0.1, "reasoning:object")


def test_a_truncated_answer_is_never_completed() -> None:
    assert category(golden("truncated.json")) is ErrorCategory.TRUNCATED


@pytest.mark.parametrize(
    ("content", "method"),
    [
        pytest.param(YES, "json", id="plain"),
        pytest.param(f"\n {YES} \n", "json", id="plain with blanks"),
        pytest.param(f"```json\n{YES}\n```", "fence", id="fence"),
        pytest.param(f"```\n{YES}```", "fence", id="fence without language"),
        pytest.param(f"Here it is:\n```json\n{YES}\n```\nAnything else?", "fence", id="fence in prose"),
        pytest.param(f"```json\n{YES}", "fence", id="fence never closed"),
        pytest.param(f"My answer is {YES}. Done.", "object", id="prose"),
        pytest.param(f"I think {{ hm }} so: {YES}", "object", id="prose with braces"),
        pytest.param("{" + YES + "}", "object", id="doubled braces"),
        pytest.param(f"[{YES}]", "object", id="in an array"),
        pytest.param(f'{{"result": {YES}}}', "object", id="in another object"),
        pytest.param(f"{YES}<|return|>", "object", id="stray end token"),
        pytest.param(f"{YES}\n{YES}", "object", id="said twice"),
        pytest.param(f'Format {{"detected": true|false}}: {YES}', "object", id="echoed schema"),
        pytest.param(
            f'Format {{"detected": "true or false", "confidence": "0-1"}}: {YES}', "object", id="schema as JSON"
        ),
        pytest.param(f"<think>Draft: {NO}</think>{YES}", "think:json", id="think"),
        pytest.param(f"Draft: {NO}</think>\n{YES}", "think:json", id="think without opening tag"),
        pytest.param(f"<think>a</think><think>{NO}</think>```json\n{YES}\n```", "think:fence", id="two thinks, fence"),
        pytest.param(f"[THINK]{NO}[/THINK] So: {YES}", "think:object", id="think of another make"),
        pytest.param(f"<|channel|>final <|constrain|>JSON<|message|>{YES}", "harmony:json", id="harmony"),
        pytest.param(
            f"<|channel|>analysis<|message|>{NO}<|channel|>final<|message|>{YES}", "harmony:json", id="no end"
        ),
        pytest.param(
            f"<|channel|>final<|message|>{NO}<|end|><|channel|>final<|message|>{YES}<|return|>",
            "harmony:json",
            id="last final wins",
        ),
        pytest.param(f"final<|message|>{YES}", "harmony:json", id="harmony without channel"),
        pytest.param(YES[:-1] + ",}", "json_repair", id="trailing comma"),
        pytest.param(YES.replace('"', "'"), "json_repair", id="single quotes"),
        pytest.param(YES.replace("true", "True"), "json_repair", id="python"),
        pytest.param(
            "{detected: true, confidence: 0.9, indicators: ['a'], rationale: 'r'}", "json_repair", id="bare keys"
        ),
        pytest.param(YES.replace("true", '"true"'), "json+coerced", id="quoted true"),
        pytest.param(YES.replace("0.9", '"0.9"'), "json", id="quoted confidence"),
        pytest.param(YES.replace("0.9", '"0. nine"'), "json+confidence_fix", id="quoted words"),
        pytest.param(YES.replace("0.9", "0. nine"), "json+confidence_fix", id="words"),
        pytest.param(YES.replace("0.9", ".9"), "json+confidence_fix", id="no leading zero"),
        pytest.param(YES.replace("0.9", "0. 9"), "json+confidence_fix", id="space in number"),
        pytest.param(YES.replace("0.9", "0. ninety"), "json+confidence_fix", id="tens"),
        pytest.param("So: " + YES.replace("0.9", "0. nine"), "object+confidence_fix", id="words in prose"),
        pytest.param(YES[:-1].replace("0.9", "0. nine") + ",}", "json_repair+confidence_fix", id="words and comma"),
    ],
)
def test_every_shape_of_the_same_answer_reads_the_same_and_records_how(content: str, method: str) -> None:
    found = detection(read(content, finish_reason="stop"))
    assert (found.detected, found.confidence, found.indicators, found.rationale) == (True, 0.9, ("a",), "r")
    assert found.parse_method == method


@pytest.mark.parametrize(
    ("words", "number"),
    [("0. nine", 0.9), ("0.nine", 0.9), ("0. nine five", 0.95), ("0. ninety-five", 0.95), ("0. zero five", 0.05)],
)
def test_words_after_the_point_are_read_digit_by_digit(words: str, number: float) -> None:
    assert detection(read(f'{{"detected": true, "confidence": {words}}}')).confidence == number


@pytest.mark.parametrize("words", ["0. high", "0. ", "0.", "1.", "nine", "zero point nine", "0. nine percent", "0,9"])
@pytest.mark.parametrize("quote", ['"', ""])
def test_words_that_are_no_number_are_never_guessed(words: str, quote: str) -> None:
    verdict = read(f'{{"detected": true, "confidence": {quote}{words}{quote}}}')
    assert category(verdict) in (ErrorCategory.SCHEMA, ErrorCategory.BAD_JSON)


# --- no answer -------------------------------------------------------------------------------------------------------

CUT = YES[:-20]


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        pytest.param(Envelope(content=""), ErrorCategory.EMPTY, id="empty"),
        pytest.param(Envelope(content=" \n\t"), ErrorCategory.EMPTY, id="whitespace"),
        pytest.param(Envelope(content="", finish_reason="stop"), ErrorCategory.EMPTY, id="empty, stop"),
        pytest.param(Envelope(content="", finish_reason="length"), ErrorCategory.TRUNCATED, id="empty, length"),
        pytest.param(Envelope(content="", finish_reason="MAX_TOKENS"), ErrorCategory.TRUNCATED, id="empty, max tokens"),
        pytest.param(Envelope(finish_reason="content_filter"), ErrorCategory.CONTENT_FILTER, id="empty, filter"),
        pytest.param(
            Envelope(content=CUT, finish_reason="content_filter"), ErrorCategory.CONTENT_FILTER, id="cut, filter"
        ),
        pytest.param(Envelope(refusal="I cannot."), ErrorCategory.REFUSAL, id="refusal"),
        pytest.param(Envelope(content="I cannot.", refusal="No."), ErrorCategory.REFUSAL, id="refusal and prose"),
        pytest.param(Envelope(finish_reason="refusal"), ErrorCategory.REFUSAL, id="refusal as finish reason"),
        pytest.param(
            Envelope(finish_reason="length", refusal="No."), ErrorCategory.TRUNCATED, id="length before refusal"
        ),
        pytest.param(Envelope(carries_non_text=True), ErrorCategory.NO_CONTENT, id="tool calls"),
        pytest.param(Envelope(finish_reason="tool_calls"), ErrorCategory.NO_CONTENT, id="tool calls as finish reason"),
        pytest.param(Envelope(reasoning="Hm."), ErrorCategory.NO_CONTENT, id="reasoning without answer"),
        pytest.param(Envelope(reasoning=CUT), ErrorCategory.NO_CONTENT, id="reasoning with an open draft"),
        pytest.param(Envelope(reasoning=YES[:-1] + ",}"), ErrorCategory.NO_CONTENT, id="no repair in reasoning"),
        pytest.param(Envelope(reasoning=YES, finish_reason="length"), ErrorCategory.TRUNCATED, id="reasoning, length"),
        pytest.param(Envelope(reasoning=YES + NO), ErrorCategory.AMBIGUOUS, id="two drafts in reasoning"),
        pytest.param(Envelope(content="<think>Hm.</think>"), ErrorCategory.NO_CONTENT, id="thoughts only"),
        pytest.param(Envelope(content="<think>Hm."), ErrorCategory.NO_CONTENT, id="thoughts never closed"),
        pytest.param(
            Envelope(content="<|channel|>analysis<|message|>Hm."), ErrorCategory.NO_CONTENT, id="analysis only"
        ),
        pytest.param(Envelope(content="No partner is mentioned."), ErrorCategory.BAD_JSON, id="plain prose"),
        pytest.param(Envelope(content="null"), ErrorCategory.BAD_JSON, id="null"),
        pytest.param(Envelope(content='"detected": true'), ErrorCategory.BAD_JSON, id="no braces"),
        pytest.param(Envelope(content='{"answer": true}'), ErrorCategory.BAD_JSON, id="object without detected"),
        pytest.param(Envelope(content="{}"), ErrorCategory.BAD_JSON, id="empty object"),
        pytest.param(Envelope(content=CUT), ErrorCategory.TRUNCATED, id="cut without saying so"),
        pytest.param(Envelope(content=f"So: {CUT}", finish_reason="stop"), ErrorCategory.TRUNCATED, id="cut in prose"),
        pytest.param(Envelope(content='{"dete', finish_reason="stop"), ErrorCategory.TRUNCATED, id="cut in the key"),
        pytest.param(Envelope(content='{"detected": tr'), ErrorCategory.TRUNCATED, id="cut in the value"),
        pytest.param(Envelope(content=f"{YES} or {CUT}"), ErrorCategory.TRUNCATED, id="cut in a second object"),
        pytest.param(
            Envelope(content=f"So: {YES}", finish_reason="length"), ErrorCategory.TRUNCATED, id="more was to come"
        ),
        pytest.param(
            Envelope(content=YES[:-1] + ",}", finish_reason="length"), ErrorCategory.TRUNCATED, id="no repair"
        ),
    ],
)
def test_an_answer_that_is_none_is_named_by_its_cause(envelope: Envelope, expected: ErrorCategory) -> None:
    assert category(parse_answer(envelope)) is expected


@pytest.mark.parametrize("content", [YES, f"```json\n{YES}\n```", f"<think>x</think>{YES}"])
def test_an_object_complete_at_the_very_limit_counts(content: str) -> None:
    assert detection(read(content, finish_reason="length")).detected is True


# --- the fields ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ['"yes"', '"True"', '"TRUE"', '" true"', "1", "0", '"1"', "null", "[true]", '""', "1.0"]
)
def test_detected_is_true_or_false_and_nothing_like_it(value: str) -> None:
    assert category(read(f'{{"detected": {value}, "confidence": 0.9}}')) is ErrorCategory.SCHEMA


@pytest.mark.parametrize(
    ("value", "confidence"),
    [
        ("0", 0.0),
        ("1", 1.0),
        ("0.5", 0.5),
        ("-0.0", 0.0),
        ("5e-1", 0.5),
        ('"0.5"', 0.5),
        ('" 1 "', 1.0),
        ("null", None),
    ],
)
def test_confidence_is_a_number_or_a_numeric_string(value: str, confidence: float | None) -> None:
    found = detection(read(f'{{"detected": false, "confidence": {value}}}'))
    assert found.confidence == confidence
    assert str(found.confidence) == str(confidence)


def test_a_missing_confidence_is_unknown() -> None:
    assert read('{"detected": false}') == Detection(detected=False, confidence=None, parse_method="json")


@pytest.mark.parametrize("value", ["95", '"95"', '"95%"', '"0.9 %"', "-0.1", "1.0001", '"-0.1"', "1e300", "9" * 5000])
def test_a_confidence_outside_its_range_is_never_rescaled(value: str) -> None:
    assert category(read(f'{{"detected": true, "confidence": {value}}}')) is ErrorCategory.CONFIDENCE_OUT_OF_RANGE


@pytest.mark.parametrize("value", ['"high"', '"nan"', '"inf"', '"1_0"', "true", "[0.9]", "{}", '"٠.٩"', '"0.9.1"'])
def test_a_confidence_that_is_no_number_is_a_schema_error(value: str) -> None:
    assert category(read(f'{{"detected": true, "confidence": {value}}}')) is ErrorCategory.SCHEMA


@pytest.mark.parametrize(
    ("value", "indicators"),
    [
        (["a", " b "], ("a", "b")),
        ("a, b", ("a", "b")),
        ("a", ("a",)),
        ("", ()),
        ([], ()),
        (["", "a"], ("a",)),
        (None, ()),
        (["x" * 200] * 50, ("x" * 200,) * 50),
    ],
)
def test_indicators_are_a_list_or_a_text_with_commas(value: object, indicators: tuple[str, ...]) -> None:
    assert detection(read(json.dumps({"detected": True, "indicators": value}))).indicators == indicators


@pytest.mark.parametrize(
    "value",
    [{"a": 1}, ["a"] * 10_000, ["a"] * 51, ",".join("a" * 51), "x" * 201, ["x" * 201], [1], [None], [["a"]], 5, True],
    ids=lambda value: type(value).__name__,
)
def test_indicators_of_another_shape_are_a_schema_error(value: object) -> None:
    assert category(read(json.dumps({"detected": True, "indicators": value}))) is ErrorCategory.SCHEMA


@pytest.mark.parametrize("value", [["a"], 5, {"a": 1}, False])
def test_a_rationale_that_is_no_text_is_a_schema_error(value: object) -> None:
    assert category(read(json.dumps({"detected": True, "rationale": value}))) is ErrorCategory.SCHEMA


@pytest.mark.parametrize(
    "content",
    [
        '{"detected": false, "detected": true}',
        '{"detected": true, "detected": true}',
        '{"detected": true, "confidence": 0.1, "confidence": 0.9}',
        '{"detected": false, "\\u0064etected": true}',
        'So: {"detected": false, "detected": true}',
        '{"detected": true, "confidence": NaN}',
        '{"detected": true, "confidence": NaN,}',
        '{"detected": true, "confidence": Infinity}',
        '{"detected": true, "confidence": 1e999}',
        '{"detected": true, "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"detected": true, "x": ' + "[" * 100_000,
        '{"x":' * 100_000,
        '{"a"}' * 100,
        "{" + '"detected' * 50_000,
    ],
    ids=range(14),
)
def test_json_that_we_refuse_is_bad_json_and_is_not_repaired(content: str) -> None:
    assert category(read(content, finish_reason="stop")) in (ErrorCategory.BAD_JSON, ErrorCategory.TRUNCATED)


def test_duplicate_keys_and_numbers_out_of_json_are_named() -> None:
    assert category(read('{"detected": false, "detected": true}')) is ErrorCategory.BAD_JSON
    assert category(read('{"detected": true, "confidence": 1e999}')) is ErrorCategory.BAD_JSON


def test_raw_line_breaks_inside_strings_are_taken() -> None:
    assert detection(read('{"detected": true, "rationale": "a\nb\tc"}')).rationale == "a\nb\tc"


def test_nothing_that_sqlite_could_not_store_comes_out() -> None:
    found = detection(read('{"detected": true, "indicators": ["a\\ud800"], "rationale": "b\\u0000\\ud83d\\ude00"}'))
    assert found.indicators == ("a\ufffd",)
    assert found.rationale == "b\ufffd\U0001f600"


# --- contradiction and injection -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(f"{YES}\n{NO}", id="two"),
        pytest.param(f"[{YES}, {NO}]", id="two in an array"),
        pytest.param(f"The text says {NO}. My answer: {YES}", id="echo first"),
        pytest.param(f"```json\n{YES}\n```\n```json\n{NO}\n```", id="two fences"),
        pytest.param(f"```json\n{YES}\n``` although the text says {NO}", id="fence and echo"),
        pytest.param(f"{YES} {YES.replace('0.9', '0.8')}", id="same verdict, other confidence"),
        pytest.param(f"{YES} {YES.replace('0.9', '95')}", id="second one out of range"),
        pytest.param(f"{YES} {NO[:-1]},}}", id="second one malformed"),
        pytest.param(f"{YES[:-1]},}} {NO[:-1]},}}", id="both malformed"),
        pytest.param('{"detected": true, "rationale": "it says {"detected": false} here"}', id="unescaped quotation"),
    ],
)
def test_objects_that_contradict_each_other_are_ambiguous_never_the_first(content: str) -> None:
    assert category(read(content, finish_reason="stop")) is ErrorCategory.AMBIGUOUS


@pytest.mark.parametrize(
    "echo",
    [
        YES,
        f"<|channel|>final<|message|>{YES}",
        f"</think>{YES}",
        f"<think>x</think>{YES}",
        f"```json\n{YES}\n```",
        '", "detected": true, "x": "',
        "}{" + YES,
    ],
    ids=range(7),
)
def test_an_echo_inside_the_rationale_changes_nothing(echo: str) -> None:
    content = json.dumps({"detected": False, "confidence": 0.1, "rationale": f"The text says: {echo} and so on."})
    for wrapped in (
        content,
        f"```json\n{content}\n```",
        f"<think>Hm.</think>{content}",
        f"<|channel|>final<|message|>{content}",
    ):
        verdict = read(wrapped, finish_reason="stop")
        assert isinstance(verdict, Failure) or verdict.detected is False
    assert detection(read(content)).detected is False


def test_an_object_inside_a_malformed_one_is_never_the_answer() -> None:
    assert category(read('{"detected": maybe, "example": {"detected": true}}')) is not ErrorCategory.AMBIGUOUS
    assert (
        category(read('{"detected": unsure, "note": {"detected": true, "confidence": 1}, }')) is ErrorCategory.BAD_JSON
    )


BROKEN = [
    pytest.param('"detected": false, "rationale": "it says {QUOTED} here"}', id="no opening brace"),
    pytest.param('{rationale": "it says {QUOTED} here", "detected": false}', id="no opening quote"),
    pytest.param('{"detected": false, "confidence":} 0.1, "rationale": "it says {QUOTED} here"}', id="early brace"),
    pytest.param('{: false, "rationale": "it says {QUOTED} here"}', id="no key"),
    pytest.param('{"etected": false,} "rationale": "it says {QUOTED} here"}', id="misspelt key"),
    pytest.param('{"detected": false, "rationale": "it says {QUOTED} here}', id="no closing quote"),
    pytest.param('{"dtected": false, "rationale": "it says "{QUOTED} here"}', id="misspelt key and a quote too many"),
]


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize(
    "quoted", ["{'detected': true}", "{detected: true}", '{"detected": true}', '{\\"detected\\": true}']
)
@pytest.mark.parametrize("before", ["", "So: ", "```json\n", "<think>Hm.</think>"])
def test_a_quotation_inside_a_broken_answer_never_becomes_the_answer(content: str, quoted: str, before: str) -> None:
    verdict = read(before + content.replace("{QUOTED}", quoted), finish_reason="stop")
    assert isinstance(verdict, Failure) or verdict.detected is False


def test_nested_detected_belongs_to_the_object_around_it() -> None:
    assert detection(read('{"detected": false, "example": {"detected": true}}')).detected is False


@pytest.mark.parametrize(
    "content",
    [
        '{"detected": true or false,}',
        '{"detected": true|false,}',
        '{"detected": ,}',
        '{"detected": yes,}',
        '{"detected": "true, "confidence": 0.5}',
        '{"detected": true, "confidence": 0. high,}',
        '{"detected": true, "confidence": 95%}',
        '{"detected": true, "confidence": 01,}',
        '{\\"detected\\": true}',
        '{"rationale": "it was detected: true", "detected" false}',
    ],
)
def test_repair_takes_nothing_that_does_not_stand_in_the_text(content: str) -> None:
    assert category(read(content, finish_reason="stop")) is ErrorCategory.BAD_JSON


@pytest.mark.parametrize(
    "beside", ['{"detected": true,}', '{"detected": "maybe"}', '{"rationale": "r",}', '"rationale": "r"']
)
def test_repair_is_for_an_object_that_stands_alone(beside: str) -> None:
    assert detection(read('So: {"detected": true,}')).parse_method == "json_repair"
    assert category(read(f'{beside} and {{"detected": true,}}', finish_reason="stop")) is ErrorCategory.BAD_JSON


def test_a_text_too_long_for_an_answer_is_not_searched() -> None:
    assert category(read("word " * 100_000 + YES)) is ErrorCategory.BAD_JSON


def test_reasoning_is_kept_at_a_bounded_length() -> None:
    steps = detection(read(YES, reasoning="x" * 100_000)).reasoning_steps
    assert steps is not None
    assert len(steps) == 65_536


# --- properties ------------------------------------------------------------------------------------------------------

MARKS = [
    *"{}[]\"',:\\“ \n",
    "//",
    "/*",
    "detected",
    '"detected"',
    '"confidence"',
    "rationale",
    "true",
    "false",
    "null",
    "NaN",
]
FRAMES = ["0. nine", "0.9", "95", "```json\n", "```", "<think>", "</think>", "<|channel|>", "final", "<|message|>"]
FRAGMENTS = st.lists(
    st.sampled_from([*MARKS, *FRAMES, YES, NO, "\ud800", "\x00"]) | st.text(max_size=3), max_size=25
).map("".join)
REASONS = st.sampled_from([None, "stop", "length", "content_filter", "tool_calls", "refusal", "x"])


@given(FRAGMENTS, st.none() | FRAGMENTS, REASONS)
@example('{"detected": ', None, "stop")
def test_a_detection_stands_literally_in_the_text(content: str, reasoning: str | None, reason: str | None) -> None:
    verdict = parse_answer(Envelope(content=content, reasoning=reasoning, finish_reason=reason))
    if isinstance(verdict, Detection):
        source = reasoning or "" if not content.strip() else content + (reasoning or "")
        assert str(verdict.detected).lower() in source.lower()
        assert "detected" in source.lower()
        assert verdict.confidence is None or 0 <= verdict.confidence <= 1
        for text in (*verdict.indicators, verdict.rationale or ""):
            assert "\x00" not in text
            text.encode()


TEXTS = st.text(max_size=40)
# Markers quoted inside an answer that itself stands behind markers may cost the answer, but never change it.
UNMARKED_TEXTS = st.text(st.characters(exclude_characters="<["), max_size=40)
MARKED_WRAPPINGS = ["<think>Hm.</think>{}", "<|channel|>final<|message|>{}<|return|>", "So: {}"]


@given(
    st.booleans(),
    st.none() | st.floats(0, 1),
    TEXTS,
    st.sampled_from(["{}", " {}\n", "```json\n{}\n```"]),
    st.booleans(),
)
def test_a_sound_answer_comes_through_whatever_its_texts_say(
    detected: bool, confidence: float | None, text: str, wrapping: str, ascii_only: bool
) -> None:
    answer = {"detected": detected, "confidence": confidence, "indicators": [text], "rationale": text}
    found = detection(read(wrapping.replace("{}", json.dumps(answer, ensure_ascii=ascii_only)), finish_reason="stop"))
    assert (found.detected, found.confidence) == (detected, confidence)
    assert found.rationale == clean_text(text)


@given(st.booleans(), UNMARKED_TEXTS, st.sampled_from(MARKED_WRAPPINGS), st.booleans())
def test_a_sound_answer_comes_through_markers_and_prose(
    detected: bool, text: str, wrapping: str, ascii_only: bool
) -> None:
    content = json.dumps({"detected": detected, "rationale": text}, ensure_ascii=ascii_only)
    found = detection(read(wrapping.replace("{}", content), finish_reason="stop"))
    assert (found.detected, found.rationale) == (detected, clean_text(text))


@given(st.booleans(), TEXTS, st.sampled_from(MARKED_WRAPPINGS))
def test_no_text_inside_an_answer_turns_it_round(detected: bool, text: str, wrapping: str) -> None:
    content = json.dumps({"detected": detected, "rationale": text}, ensure_ascii=False)
    verdict = read(wrapping.replace("{}", content), finish_reason="stop")
    assert isinstance(verdict, Failure) or verdict.detected is detected


@given(
    st.integers(1, len(YES) - 1), st.sampled_from(["", "```json\n", "So: "]), st.sampled_from([None, "stop", "length"])
)
def test_no_prefix_of_an_answer_is_an_answer(length: int, before: str, reason: str | None) -> None:
    verdict = read(before + YES[:length], finish_reason=reason)
    assert category(verdict) in (ErrorCategory.TRUNCATED, ErrorCategory.BAD_JSON)
