"""What docs/servers.md says of llama.cpp, asked of the server itself: a newer one that answers otherwise shows here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from harness import Process, clean_environment, wait_until
from questions import ANY_TEXT, CLOSING, response_format
from serving import SLOT_TOKENS, LlamaServer
from tiny_model import write_tiny_model

CHAT = "/v1/chat/completions"
KEY = "sesame-1f0c9d3e7b"


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """One for all: nothing here changes it."""
    with LlamaServer(model, tmp_path_factory.mktemp("server")) as running:
        yield running


def test_the_model_is_small_and_the_same_every_time(model: Path, tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "again.gguf")

    assert (tmp_path / "again.gguf").read_bytes() == model.read_bytes()
    assert model.stat().st_size < 600_000


def test_a_server_ends_when_whoever_started_it_is_killed(model: Path, tmp_path: Path) -> None:
    starter = (
        "import time; from pathlib import Path; from serving import LlamaServer\n"
        f"server = LlamaServer(Path({str(model)!r}), Path({str(tmp_path / 'server')!r})); server.start()\n"
        "print(server.url, flush=True); time.sleep(600)"
    )
    environment = clean_environment(PYTHONPATH=os.pathsep.join(sys.path))
    with Process(
        [sys.executable, "-c", starter], cwd=tmp_path, environment=environment, stdout=subprocess.PIPE
    ) as process:
        url = process.stdout.readline().decode().strip()
        assert can_connect(url), process.read_err()

        process.send(signal.SIGKILL)

        wait_until(lambda: not can_connect(url), what="the server is gone", at_most_s=20)


def can_connect(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port or 0)), timeout=5).close()
    except OSError:
        return False
    return True


def test_an_answer_says_how_it_ended_what_it_cost_and_who_gave_it(server: LlamaServer, model: Path) -> None:
    reply = server.chat("hello", model="any name", response_format=response_format(CLOSING))

    assert reply.status == 200
    assert reply.headers["server"] == "llama.cpp"
    assert reply.body["model"] == str(model)  # the file that it has loaded, whatever was asked for
    assert reply.body["system_fingerprint"].startswith("b")
    (choice,) = reply.body["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"].keys() == {"role", "content"}
    assert json.loads(choice["message"]["content"]).keys() == CLOSING["properties"].keys()
    usage = reply.body["usage"]
    assert usage.keys() == {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"}
    assert usage["prompt_tokens_details"].keys() == {"cached_tokens"}
    assert {"prompt_ms", "predicted_ms", "cache_n"} <= reply.body["timings"].keys()


@pytest.mark.parametrize(
    ("path", "body", "status", "error_type"),
    [
        pytest.param("/v1/nothing", {}, 404, "not_found_error", id="unknown path"),
        pytest.param(CHAT, None, 404, "not_found_error", id="GET instead of POST"),
        pytest.param(CHAT, b'{"messages":', 400, "invalid_request_error", id="no JSON"),
        pytest.param(CHAT, {}, 400, "invalid_request_error", id="no messages"),
        pytest.param(
            CHAT,
            {"messages": [{"role": "user", "content": "x"}], "temperature": "hot"},
            400,
            "invalid_request_error",
            id="a value of the wrong type",
        ),
        pytest.param(
            CHAT,
            {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "grammar"}},
            400,
            "invalid_request_error",
            id="a response_format that it does not know",
        ),
        pytest.param(
            CHAT,
            {"messages": [{"role": "user", "content": "x"}], "response_format": response_format({"type": "nonsense"})},
            400,
            "invalid_request_error",
            id="a schema that it cannot follow",
        ),
        pytest.param(
            CHAT,
            {"messages": [{"role": "user", "content": "x" * 3000}]},
            400,
            "exceed_context_size_error",
            id="longer than the context",
        ),
    ],
)
def test_a_refusal_has_a_type_and_repeats_the_status_as_code(
    path: str, body: object, status: int, error_type: str, server: LlamaServer
) -> None:
    reply = server.ask(path, body)

    assert (reply.status, reply.error["code"], reply.error["type"]) == (status, status, error_type)
    assert isinstance(reply.error["message"], str)
    assert "retry-after" not in reply.headers
    assert reply.headers["connection"] == "close"


def test_an_overlong_request_is_told_by_its_own_type_with_both_lengths(server: LlamaServer) -> None:
    error = server.chat("x" * 3000).error

    assert error["n_ctx"] == SLOT_TOKENS
    assert error["n_prompt_tokens"] > 3000


def test_a_full_context_ends_an_answer_as_a_limit_does(server: LlamaServer) -> None:
    for reply in (server.chat("x", max_tokens=3), server.chat("x" * 2000, ignore_eos=True)):
        assert reply.status == 200
        assert reply.body["choices"][0]["finish_reason"] == "length"
    assert reply.body["usage"]["total_tokens"] == SLOT_TOKENS


def test_without_the_right_key_everything_but_health_is_401(model: Path, tmp_path: Path) -> None:
    with LlamaServer(model, tmp_path / "server", api_key=KEY) as server:
        for path in (CHAT, "/v1/models", "/v1/nothing"):
            for key in (None, "another"):
                reply = server.ask(path, {} if path == CHAT else None, api_key=key)
                assert (reply.status, reply.error["type"]) == (401, "authentication_error")
        assert server.ask("/health").status == 200
        assert server.chat("x", max_tokens=1).status == 401
        assert server.ask("/v1/models", api_key=KEY).status == 200


def test_text_that_breaks_its_own_grammar_is_a_500_and_not_a_refusal(server: LlamaServer) -> None:
    replies = [server.chat(f"noise {n}", response_format=response_format(ANY_TEXT), max_tokens=400) for n in range(12)]

    failed = [reply for reply in replies if reply.status != 200]
    assert failed
    assert {(reply.status, reply.error["type"]) for reply in failed} == {(500, "server_error")}


def test_it_takes_fields_that_it_does_not_know_and_any_model_name(server: LlamaServer) -> None:
    reply = server.chat(
        "x", model="no such model", max_completion_tokens=2, reasoning_effort="low", no_such_field=1, seed=5, top_p=0.9
    )

    assert reply.status == 200
    assert reply.body["usage"]["completion_tokens"] == 2


def test_it_closes_a_connection_after_its_hundredth_answer_and_says_so_with_that_one(server: LlamaServer) -> None:
    said = []
    with closing(server.connect()) as connection:
        for _ in range(100):
            connection.request("GET", "/health")
            answer = connection.getresponse()
            answer.read()
            said.append(answer.getheader("keep-alive") or answer.getheader("connection"))

    assert said == ["timeout=5, max=100"] * 99 + ["close"]


def test_a_refused_text_is_quoted_in_the_message(server: LlamaServer) -> None:
    """Why messages of endpoints are never shown or stored beside a narrative."""
    broken = b'{"messages":[{"role":"user","content":"private words \\ud800!"}]}'

    assert "private words" in server.ask(CHAT, broken).error["message"]
