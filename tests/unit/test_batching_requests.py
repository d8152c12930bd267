"""Promises of identifiers and lines: deterministic, short, known again, and the body that a live call would send."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.batching.requests import (
    MAX_CUSTOM_ID_CHARS,
    MAX_NUMBER,
    RequestKey,
    custom_id_of,
    endpoint_of,
    experiment_key,
    parse_custom_id,
    remote_name,
    request_line,
    token_of,
)
from narrun_async.models import ExperimentId, NarrativeId
from narrun_async.prompting import RequestFields, RequestTemplate

EXPERIMENT = ExperimentId("3b9bd5c1-1612-4539-9725-267519d376d9")
DIGEST = "a" * 64


@given(st.uuids(), st.integers(1, MAX_NUMBER), st.integers(1, 2**63 - 1))
def test_a_custom_id_is_short_plain_and_leads_back(experiment: uuid.UUID, number: int, narrative_id: int) -> None:
    key = RequestKey(
        experiment=experiment_key(ExperimentId(str(experiment))), number=number, narrative_id=NarrativeId(narrative_id)
    )
    custom_id = custom_id_of(key)
    assert len(custom_id) <= MAX_CUSTOM_ID_CHARS
    assert set(custom_id) <= set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_")
    assert parse_custom_id(custom_id) == key
    assert custom_id_of(key) == custom_id


@given(st.text(max_size=100))
def test_no_other_text_is_taken_for_one_of_ours_unless_it_is_exactly_one(text: str) -> None:
    key = parse_custom_id(text)
    assert key is None or custom_id_of(key) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "request-1",
        f"{EXPERIMENT}-1",
        f"{EXPERIMENT}-1-",
        f"{EXPERIMENT}-0-1",
        f"{EXPERIMENT}-01-1",
        f"{EXPERIMENT}-1-1\n",
        f"{EXPERIMENT}-1-٣",
        f"{EXPERIMENT}-1-1-1",
    ],
)
def test_what_only_looks_like_one_of_ours_is_none(text: str) -> None:
    assert parse_custom_id(text) is None


def test_an_experiment_whose_id_is_no_uuid_still_has_a_key_of_its_own() -> None:
    odd, other = experiment_key(ExperimentId("R run №7")), experiment_key(ExperimentId("R run №8"))
    assert len(odd) == len(other) == 36
    assert odd != other
    key = RequestKey(experiment=odd, number=MAX_NUMBER, narrative_id=NarrativeId(2**63 - 1))
    assert parse_custom_id(custom_id_of(key)) == key


def test_the_same_narrative_in_another_batch_has_another_id() -> None:
    first, second = (
        custom_id_of(RequestKey(experiment=EXPERIMENT, number=number, narrative_id=NarrativeId(5))) for number in (1, 2)
    )
    assert first != second


def test_a_line_is_one_json_object_whose_body_is_exactly_that_of_a_live_call() -> None:
    template = RequestTemplate.build(
        RequestFields(model="m", system_prompt="Say „ja“.", user_template="A\n<<TEXT>>\u2028B", temperature=0.2)
    )
    body = template.body_for('quotes " and \n line ends \u2028 and 🖤')
    line = request_line("some-id", endpoint="/v1/chat/completions", body=body)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1 and line.isascii()
    asked = json.loads(line)
    assert asked == {
        "custom_id": "some-id",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": json.loads(body),
    }
    assert body in line


def test_a_token_is_that_of_the_file_and_of_how_often_a_person_had_it_sent_anew() -> None:
    token = token_of(EXPERIMENT, 1, input_sha256=DIGEST, n_resubmissions=0)
    assert token == token_of(EXPERIMENT, 1, input_sha256=DIGEST, n_resubmissions=0)
    others = {
        token_of(EXPERIMENT, 2, input_sha256=DIGEST, n_resubmissions=0),
        token_of(EXPERIMENT, 1, input_sha256="b" * 64, n_resubmissions=0),
        token_of(EXPERIMENT, 1, input_sha256=DIGEST, n_resubmissions=1),
        token_of(ExperimentId("another"), 1, input_sha256=DIGEST, n_resubmissions=0),
    }
    assert len(others | {token}) == 5
    assert len(token) == 32
    assert remote_name(token) == f"narrun-{token}.jsonl"


@pytest.mark.parametrize(
    ("api_url", "endpoint"),
    [
        (None, "/v1/chat/completions"),
        ("http://localhost:1234/v1/chat/completions", "/v1/chat/completions"),
        ("http://localhost:1234", "/v1/chat/completions"),
        ("https://x.openai.azure.com/openai/v1/chat/completions", "/v1/chat/completions"),
        (
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "/chat/completions",
        ),
        ("${AZURE}/openai/deployments/d/chat/completions", "/chat/completions"),
    ],
)
def test_requests_are_addressed_as_the_provider_wants_it(api_url: str | None, endpoint: str) -> None:
    assert endpoint_of(api_url) == endpoint
