"""What is configured is what is sent, seen from the server: body, headers, query, key; and what `auto` comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import StartEndpoint
from doorway import Doorway, open_doorway
from harness import Endpoint, Workplace, recorded_requests, wait_until

pytestmark = pytest.mark.crash

KEY = "key-of-tests-0123456789"
SCHEMA = ("--response-format", "json_schema=bind")


def heads(path: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sent(workplace: Workplace) -> list[Mapping[str, Any]]:
    return recorded_requests(workplace.directory / "bodies")


@pytest.fixture(scope="module")
def door() -> Iterator[Doorway]:
    with open_doorway() as doorway:
        yield doorway


@pytest.fixture
def start_recording(workplace: Workplace, start_endpoint: StartEndpoint) -> StartEndpoint:
    def start(*flags: str) -> Endpoint:
        records = ("--record", workplace.directory / "bodies", "--record-heads", workplace.directory / "heads")
        return start_endpoint("--latency-ms", "5", *map(str, records), *flags)

    return start


def test_every_option_is_sent_as_it_was_configured(
    door: Doorway, workplace: Workplace, start_recording: StartEndpoint
) -> None:
    endpoint = start_recording("--require-key", KEY)
    options: dict[str, Any] = {
        "temperature": 1.5,
        "max_completion_tokens": 700,
        "seed": 11,
        "top_p": 0.9,
        "reasoning_effort": "xhigh",
        "response_format": {"type": "json_object"},
    }
    further = {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "stop": ["\n\n"], "nothing": None}
    config = workplace.write_config(
        url=endpoint.url + "?region=${REGION_OF_TEST}",
        narratives=workplace.write_narratives(3),
        model__headers={"X-Team": "team ${TEAM_OF_TEST}", "OpenAI-Project": "p1"},
        model__query={"trace": "a b&c", "who": "${TEAM_OF_TEST}"},
        model__body=further,
        **{f"model__{name}": value for name, value in options.items()},
    )
    environment = {"TEAM_OF_TEST": "blue", "REGION_OF_TEST": "north", "OPENAI_API_KEY": KEY}
    door.run(workplace, "run", config, environment=environment).expect(0)

    requests = sent(workplace)
    assert len(requests) == 3
    for request in requests:
        messages = request["messages"]
        assert [message["role"] for message in messages] == ["system", "user"]
        expected = {"model": "test-model", "messages": messages, **options, **further, "stream": False}
        assert dict(request) == expected
        assert list(request) == list(expected), "the order is part of what is asked"
    for head in heads(workplace.directory / "heads"):
        assert head["path"] == "/v1/chat/completions"
        assert head["query"] == "region=north&trace=a%20b%26c&who=blue"
        fields = head["headers"]
        assert (fields["x-team"], fields["openai-project"], fields["authorization"]) == ("team blue", "p1", "[key]")

    (stored,) = workplace.ask("SELECT config_json, api_url FROM experiments")
    assert "team ${TEAM_OF_TEST}" in stored["config_json"]
    assert "north" not in stored["config_json"] + stored["api_url"]
    assert not any(KEY in content for content in workplace.read_all_files())


@pytest.mark.parametrize(
    ("path", "changes", "expected"),
    [
        ("/openai/deployments/d1?api-version=2024-10-21", {}, "/openai/deployments/d1/chat/completions"),
        (
            "/openai/deployments/d1/chat/completions",
            {"query": {"api-version": "2024-10-21"}},
            "/openai/deployments/d1/chat/completions",
        ),
        ("", {"query": {"api-version": "2024-10-21"}}, "/openai/v1/chat/completions"),
    ],
    ids=["deployment", "version apart", "resource"],
)
def test_azure_gets_its_key_and_its_version_where_it_looks_for_them(
    door: Doorway,
    workplace: Workplace,
    start_recording: StartEndpoint,
    path: str,
    changes: dict[str, Any],
    expected: str,
) -> None:
    version = ("--require-query", "api-version=2024-10-21")
    endpoint = start_recording("--require-key", KEY, "--key-header", "api-key", *version)
    config = workplace.write_config(
        url=endpoint.url.removesuffix("/v1/chat/completions") + path,
        narratives=workplace.write_narratives(2),
        model__provider="azure",
        model__api_key_env="KEY_OF_TEST",
        **{f"model__{name}": value for name, value in changes.items()},
    )
    environment = {"KEY_OF_TEST": KEY}
    assert "answered a request" in door.run(workplace, "doctor", config, environment=environment).expect(0).out
    door.run(workplace, "run", config, environment=environment).expect(0)
    for head in heads(workplace.directory / "heads"):
        assert (head["path"], head["query"]) == (expected, "api-version=2024-10-21")
        assert head["headers"]["api-key"] == "[key]"
        assert "authorization" not in head["headers"]


def test_a_key_in_the_wrong_header_stops_the_run_with_no_row(
    door: Doorway, workplace: Workplace, start_recording: StartEndpoint
) -> None:
    endpoint = start_recording("--require-key", KEY, "--key-header", "X-API-Key")
    narratives = workplace.write_narratives(2)
    environment = {"OPENAI_API_KEY": KEY}
    config = workplace.write_config(url=endpoint.url, narratives=narratives)
    door.run(workplace, "run", config, environment=environment).expect(78)
    assert workplace.count_rows() == 0
    config = workplace.write_config(url=endpoint.url, narratives=narratives, model__api_key_header="X-API-Key")
    door.run(workplace, "run", config, environment=environment).expect(0)
    assert workplace.count_rows() == 2


def test_what_a_probe_found_is_told_stored_and_asked_for_by_every_later_run(
    door: Doorway, workplace: Workplace, start_recording: StartEndpoint
) -> None:
    endpoint = start_recording(*SCHEMA)
    config = workplace.write_config(
        url=endpoint.url, narratives=workplace.write_narratives(60), model__response_format="auto"
    )
    assert "auto: a question" in door.run(workplace, "run", config, "--dry-run").expect(0).err
    endpoint.change(latency_ms=50)
    with workplace.start("run", config, "--concurrency", "4") as run:
        workplace.wait_for_rows(8, run)
        run.kill()
    assert workplace.experiment()["answer_format"] == "json_schema"

    # The server forgets what it could; the experiment asks for what it has asked for.
    endpoint.change(latency_ms=1, response_formats={"json_schema": "ignore"})
    resumed = door.run(workplace, "resume").expect(0)
    assert "bound to json_schema, which the endpoint was found to obey (auto)" in resumed.err
    assert "answer format   json_schema" in door.run(workplace, "show", "latest").expect(0).out
    questions = [one for one in sent(workplace) if one["messages"][-1]["content"].startswith("Reply with")]
    assert len(questions) == 1
    forms = {one["response_format"]["json_schema"]["name"] for one in sent(workplace) if one not in questions}
    assert forms == {"verdict"}
    door.run(workplace, "verify").expect(0)


def test_an_endpoint_that_is_down_at_first_is_waited_for_and_then_asked(
    door: Doorway, workplace: Workplace, start_recording: StartEndpoint
) -> None:
    endpoint = start_recording(*SCHEMA)
    config = workplace.write_config(
        url=endpoint.url, narratives=workplace.write_narratives(5), model__response_format="auto"
    )
    endpoint.go_down()
    told = door.run(workplace, "run", config, "--max-wait", "0.3").expect(75)
    assert "the endpoint has not answered" in told.err
    assert workplace.experiment()["answer_format"] is None

    with workplace.start("resume") as run:
        log = next(workplace.directory.rglob("run.log"))
        wait_until(lambda: log.read_text().count("the breaker opens") == 2, what="the second run waits")
        assert run.is_running
        endpoint.come_up()
        run.wait().expect(0)
    assert workplace.experiment()["answer_format"] == "json_schema"


def test_an_estimate_asks_too_and_keeps_the_verdict_with_what_it_keeps(
    door: Doorway, workplace: Workplace, start_recording: StartEndpoint
) -> None:
    endpoint = start_recording("--response-format", "json_object=bind")
    config = workplace.write_config(
        url=endpoint.url, narratives=workplace.write_narratives(20), model__response_format="auto"
    )
    told = door.run(workplace, "estimate", config, "-k", "2").expect(0)
    assert "bound to json_object" in told.err
    assert not workplace.database.exists()
    door.run(workplace, "estimate", config, "-k", "2", "--keep").expect(75)
    assert workplace.experiment()["answer_format"] == "json_object"
    endpoint.change(response_formats={})
    door.run(workplace, "resume").expect(0)
    narratives = [one for one in sent(workplace) if not one["messages"][-1]["content"].startswith("Reply with")]
    assert {json.dumps(one["response_format"]) for one in narratives} == {'{"type": "json_object"}'}


def test_a_resumed_run_sends_what_the_first_one_sent_key_by_key(
    door: Doorway, workplace: Workplace, start_recording: StartEndpoint
) -> None:
    endpoint = start_recording()
    schema = {"type": "object", "properties": {"rationale": {"type": "string"}, "detected": {"type": "boolean"}}}
    config = workplace.write_config(
        url=endpoint.url,
        narratives=workplace.write_narratives(60),
        model__response_format={"type": "json_schema", "json_schema": {"name": "ours", "schema": schema}},
        model__body={"zeta": 1, "alpha": {"y": 2, "b": 3}},
    )
    endpoint.change(latency_ms=50)
    with workplace.start("run", config, "--concurrency", "4") as run:
        workplace.wait_for_rows(8, run)
        run.kill()
    n_first = len(sent(workplace))
    endpoint.change(latency_ms=1)
    door.run(workplace, "resume").expect(0)
    bodies = [json.dumps({**request, "messages": None}) for request in sent(workplace)]
    assert len(set(bodies[:n_first] + bodies[n_first:])) == 1
    assert len(bodies) > n_first


def test_a_form_named_by_a_word_is_sent_and_no_question_asked(
    door: Doorway, workplace: Workplace, start_recording: StartEndpoint
) -> None:
    endpoint = start_recording(*SCHEMA)
    config = workplace.write_config(
        url=endpoint.url, narratives=workplace.write_narratives(4), model__response_format="json_schema"
    )
    told = door.run(workplace, "run", config).expect(0)
    assert "answers    bound to json_schema\n" in told.err
    assert [one["response_format"]["type"] for one in sent(workplace)] == ["json_schema"] * 4
    assert workplace.experiment()["answer_format"] is None
    assert {row["parse_method"] for row in workplace.rows().values()} == {"json"}


def test_another_form_in_the_file_of_today_is_shown_and_changes_nothing(
    door: Doorway, workplace: Workplace, start_recording: StartEndpoint
) -> None:
    endpoint = start_recording(*SCHEMA)
    narratives = workplace.write_narratives(4)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, model__response_format="auto")
    door.run(workplace, "run", config).expect(0)
    workplace.write_config(
        url=endpoint.url, narratives=narratives, model__response_format="off", model__headers={"X-A": "1"}
    )
    told = door.run(workplace, "resume", workplace.experiment_id()).expect(0)
    assert 'model.response_format: "auto" → not set' in told.err
    assert 'model.headers.X-A: not set → "1"' in told.err
