"""What the servers that people run say when they refuse, and what each of it means; facts in `error_bodies/`.

One file a server. A body is written after what the server's sources, documentation or public issues show, and the class
and category beside it are what is right, whether or not the code agrees.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from raw_server import Server, reply, serving

from narrun_async.caller import call_within
from narrun_async.models import RawReply
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider
from narrun_async.retrying import CallFailure, judge_reply

BODIES = Path(__file__).parent / "error_bodies"
SERVERS = ("openai", "azure", "vllm", "llamacpp", "ollama", "lmstudio", "openrouter")
KEYS = {"case", "status", "headers", "body", "text", "class", "category", "retry_after_s", "by_words", "is_unexplained"}
DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "servers.md"

Case = Mapping[str, Any]


def cases_of(server: str) -> list[Case]:
    found: list[Case] = yaml.safe_load((BODIES / f"{server}.yaml").read_text(encoding="utf-8"))
    return found


CASES = [pytest.param(server, case, id=f"{server}: {case['case']}") for server in SERVERS for case in cases_of(server)]


def body_of(case: Case) -> bytes:
    return str(case["text"]).encode() if "text" in case else json.dumps(case["body"]).encode()


def reply_of(case: Case) -> RawReply:
    return RawReply(status=case["status"], headers=case.get("headers", {}), body=body_of(case))


def essence(failure: CallFailure | None) -> tuple[object, ...]:
    assert failure is not None
    return (failure.failure_class, failure.category, failure.retry_after_s, failure.is_unexplained)


def expected_of(case: Case) -> tuple[object, ...]:
    return (case["class"], case["category"], case.get("retry_after_s"), case.get("is_unexplained", False))


def test_there_is_one_file_a_server_and_no_other() -> None:
    assert sorted(path.stem for path in BODIES.iterdir()) == sorted(SERVERS)


@pytest.mark.parametrize(("server", "case"), CASES)
def test_every_case_states_facts_and_nothing_else(server: str, case: Case) -> None:
    assert case.keys() <= KEYS
    assert ("text" in case) != ("body" in case)


@pytest.mark.parametrize(("server", "case"), [param for param in CASES if param.values[1]["status"] != 200])
def test_a_refusal_is_what_its_server_means_by_it(server: str, case: Case) -> None:
    assert essence(judge_reply(reply_of(case))) == expected_of(case)


def then_of(case: Case) -> str:
    """The last column of the table in the documentation."""
    if case.get("is_unexplained"):
        return "asked again, then `bad_request`"
    deeds = {"fatal": "stops", "overload": "waits", "transient": "again", "permanent": f"`{case['category']}`"}
    return deeds[case["class"]] + (" by its words" if case.get("by_words") else "")


def test_the_documentation_has_a_row_for_every_case_and_no_other() -> None:
    table = DOCUMENTATION.read_text(encoding="utf-8").partition("\n### ")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    stated = [(case["case"], str(case["status"]), then_of(case)) for server in SERVERS for case in cases_of(server)]
    assert [(row.split(" | ")[0][2:], row.split(" | ")[1], row.split(" | ")[-1][:-2]) for row in rows] == stated


def without_words(value: object) -> object:
    """The same body in which every free text says something else: what a narrative could have brought into it."""
    if isinstance(value, dict):
        return {
            name: "the neighbour heard nothing" if name in ("message", "error", "detail") and type(inner) is str
            else without_words(inner)
            for name, inner in value.items()
        }  # fmt: skip
    return [without_words(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("server", "case"), [param for param in CASES if "body" in param.values[1]])
def test_no_words_decide_and_those_of_the_stated_exception_only_name(server: str, case: Case) -> None:
    if case["status"] == 200:
        return
    judged = judge_reply(reply_of(case))
    speechless = judge_reply(replace(reply_of(case), body=json.dumps(without_words(case["body"])).encode()))
    assert judged is not None and speechless is not None
    assert speechless.failure_class is judged.failure_class
    assert (speechless.category is not judged.category) == case.get("by_words", False)


@asynccontextmanager
async def answering(case: Case) -> AsyncIterator[OpenAICompatibleProvider]:
    """A provider for a real socket on which this is said to every call."""
    headers = b"".join(f"{name}: {value}\r\n".encode() for name, value in case.get("headers", {}).items())
    sent = reply(body_of(case), status=f"{case['status']} Made Up", headers=headers)

    async def answer(_: Any, writer: Any) -> None:
        writer.write(sent)
        await writer.drain()

    server: Server
    async with serving(answer) as server:
        provider = OpenAICompatibleProvider(url=f"http://127.0.0.1:{server.port}/v1", api_key="key-canary")
        try:
            yield provider
        finally:
            await provider.aclose()


@pytest.mark.fault("N17")
@pytest.mark.parametrize(("server", "case"), CASES)
async def test_the_same_is_understood_over_a_socket(server: str, case: Case) -> None:
    async with answering(case) as provider:
        judged = await call_within(provider, b'{"messages": "narrative-canary"}', 10.0)
    assert isinstance(judged, CallFailure)
    assert essence(judged) == expected_of(case)
