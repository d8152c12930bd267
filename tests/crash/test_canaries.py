"""A key and a narrative go through everything that can go right or wrong; afterwards every file and stream is searched.

The endpoint repeats the key, the prompt and the narrative in every place of its answers that can carry words.
"""

from __future__ import annotations

import csv
import json
import resource
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness import Finished, Workplace, wait_until
from talkative_endpoint import Answer, TalkativeEndpoint, chat, talkative_endpoint

pytestmark = pytest.mark.crash

KEY = 'sk-made-up/KEY"CANARY-0123456789abcdef'
KEY_PARTS = (KEY, json.dumps(KEY)[1:-1], "CANARY-0123456789")
NARRATIVE = "NARRATIVECANARY the neighbour heard a made-up argument"
NARRATIVE_PART = "NARRATIVECANARY"
PROMPT = "PROMPTCANARY You read made-up accounts."
PROMPT_PART = "PROMPTCANARY"
FORMATS = ("csv", "json", "jsonl", "xlsx", "parquet", "dta", "sav", "xpt")

Reply = Callable[[str, Mapping[str, Any]], Answer]


def error(status: int, *, code: str | None = None, headers: Mapping[str, str] | None = None) -> Reply:
    """An error whose every field repeats what was sent."""

    def reply(words: str, request: Mapping[str, Any]) -> Answer:
        body = {"error": {"message": words, "code": code or words, "type": words, "param": words, "prompt": request}}
        return status, headers or {}, json.dumps(body).encode()

    return reply


def answer(build: Callable[[str], bytes], **headers: str) -> Reply:
    return lambda words, request: (200, headers, build(words))


ANSWERS: Mapping[str, Reply] = {
    "well": answer(
        lambda words: chat(
            json.dumps({"detected": True, "confidence": 0.5, "rationale": words, "indicators": [words]}),
            message={"reasoning_content": words},
            system_fingerprint="fp",
        )
    ),
    "prose": answer(lambda words: chat(words)),
    "html": answer(lambda words: f"<html>{words}</html>".encode()),
    "no-json": answer(lambda words: f"{{broken {words}".encode()),
    "error-in-200": answer(lambda words: json.dumps({"error": {"message": words, "code": words}}).encode()),
    "refusal": answer(lambda words: chat("", message={"refusal": words})),
    "cut": answer(lambda words: chat(f'{{"detected": tr{words}', choice={"finish_reason": "length"})),
    "two": answer(lambda words: chat(f'{{"detected": true, "rationale": "{words[-20:]}"}} {{"detected": false}}')),
    "400": error(400),
    "413": error(413),
    "422": error(422),
    "context": error(400, code="context_length_exceeded"),
    "500": error(500),
    "401": error(401),
    "402": error(402),
    "403": error(403),
    "404": error(404, code="model_not_found"),
    "no-credit": error(429, code="insufficient_quota"),
    "redirect": lambda words, request: (307, {"Location": "http://127.0.0.1:1/" + "NARRATIVECANARY"}, words.encode()),
}
LASTING = ["prose", "html", "no-json", "error-in-200", "refusal", "cut", "two", "400", "413", "422", "context"]
PASSING = ["500"]
FATAL = ["401", "402", "403", "404", "no-credit", "redirect"]


@pytest.fixture
def endpoint() -> Iterator[TalkativeEndpoint]:
    with talkative_endpoint(ANSWERS) as opened:
        yield opened


def write_workplace(workplace: Workplace, endpoint: TalkativeEndpoint, modes: list[str]) -> Path:
    path = workplace.directory / "narratives.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["incident_id", "narrative_type", "narrative_text", "manual_flag_ind"])
        rows.writerows([f"c{number}", "cme", f"{NARRATIVE} do-{mode}", 1] for number, mode in enumerate(modes))
    return workplace.write_config(
        url=endpoint.url,
        narratives=path,
        prompt__system_prompt=PROMPT,
        run__log_level="debug",
        run__max_attempts=2,
        run__max_passes=1,
        run__save_csv_json=True,
    )


def search(workplace: Workplace, streams: list[Finished]) -> dict[str, str]:
    """Canary → where it was found and must not be."""
    found: dict[str, str] = {}
    database = workplace.database
    may_hold_narratives = {workplace.directory / "narratives.csv"} | {
        database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm")
    }
    places = {f"stream of exit {one.code}": one.out + one.err for one in streams}
    for path in workplace.directory.rglob("*"):
        if path.is_file():
            places[str(path.relative_to(workplace.directory))] = path.read_bytes().decode("utf-8", "replace")
    for place, content in places.items():
        if any(part in content for part in KEY_PARTS):
            found[f"key in {place}"] = content
        path = workplace.directory / place
        if path in may_hold_narratives or place.startswith("with-text/"):
            continue
        if NARRATIVE_PART in content:
            found[f"narrative in {place}"] = content
        if PROMPT_PART in content and path.suffix != ".yaml":
            found[f"prompt in {place}"] = content
    return found


def look_everywhere(workplace: Workplace, config: Path, environment: Mapping[str, str]) -> list[Finished]:
    """Every command that reads, beside the ones that run."""
    commands: list[tuple[str | Path, ...]] = [
        ("show", "latest", "--json"),
        ("status", "--json"),
        ("verify", "--json"),
        ("doctor", config),
        ("export", "latest", *(word for name in FORMATS for word in ("--format", name))),
        ("export", "latest", "--with-text", "--export-dir", "with-text"),
    ]
    return [workplace.run(*command, environment=environment) for command in commands]


@pytest.mark.fault("S01", "S02")
def test_no_canary_is_found_after_answers_of_every_kind(
    workplace: Workplace, endpoint: TalkativeEndpoint, measured: Any
) -> None:
    environment = {"OPENAI_API_KEY": KEY}
    config = write_workplace(workplace, endpoint, ["well"] * 8 + LASTING + PASSING)
    streams: list[Finished] = []

    with workplace.start("run", config, "--concurrency", "2", environment=environment) as run:
        wait_until(lambda: bool(list(workplace.directory.rglob("live.json"))) or not run.is_running, what="a live view")
        command_line = Path(f"/proc/{run.pid}/cmdline").read_bytes() if run.is_running else b""
        beside = search(workplace, [])
        streams.append(run.wait().expect(1))
    streams += look_everywhere(workplace, config, environment)
    streams.append(workplace.run("estimate", config, "-k", "2", environment=environment))

    categories = {row["error_category"] for row in workplace.rows().values()}
    assert {None, "bad_json", "refusal", "truncated", "ambiguous", "bad_request"} <= categories
    assert {"context_length", "transient_exhausted"} <= categories
    assert KEY.encode() not in command_line
    found = beside | search(workplace, streams)
    assert not found, sorted(found)
    # The search itself can find: what may hold narratives does, and the endpoint did repeat the key.
    exported = (workplace.directory / "with-text").glob("[!.]*")
    texts = [path.read_text() for path in exported if not path.name.endswith(".codebook.csv")]
    assert len(texts) == 2
    assert all(NARRATIVE_PART in text for text in texts)
    assert all("[key]" in text for text in texts)
    n_files = sum(path.is_file() for path in workplace.directory.rglob("*"))
    measured(f"0 hits in {n_files} files and {len(streams)} pairs of streams, {len(categories)} kinds of rows")


@pytest.mark.fault("S01", "S02")
def test_no_canary_is_found_after_refusals_that_stop_the_run(
    workplace: Workplace, endpoint: TalkativeEndpoint, measured: Any
) -> None:
    environment = {"OPENAI_API_KEY": KEY}
    config = write_workplace(workplace, endpoint, ["well", "well"])
    streams: list[Finished] = []
    for number, mode in enumerate(FATAL):
        endpoint.everybody = mode
        command = ("resume", "latest") if number else ("run", config)
        streams.append(workplace.run(*command, environment=environment).expect(78))
    streams.append(workplace.run("doctor", config, environment=environment).expect(78))
    streams.append(workplace.run("show", "latest", environment=environment))

    found = search(workplace, streams)

    assert not found, sorted(found)
    assert workplace.count_rows() == 0
    reasons = [workplace.ask("SELECT ended_why FROM runs"), workplace.ask("SELECT * FROM attempts")]
    assert NARRATIVE_PART not in json.dumps(reasons)
    measured(f"0 hits after {len(FATAL)} refusals ({', '.join(FATAL)})")


def test_the_doctor_shows_the_words_of_the_endpoint_because_its_request_holds_no_narrative(
    workplace: Workplace, endpoint: TalkativeEndpoint
) -> None:
    config = write_workplace(workplace, endpoint, ["404"])

    stopped = workplace.run("run", config).expect(78)
    endpoint.everybody = "404"
    told = workplace.run("doctor", config).expect(78)

    assert "narrun doctor CONFIG" in stopped.err
    assert "it says: " in told.out
    assert "Reply with the word OK" in told.out


@pytest.mark.fault("S01", "S02")
def test_no_canary_is_found_after_a_full_disk(workplace: Workplace, endpoint: TalkativeEndpoint, measured: Any) -> None:
    environment = {"OPENAI_API_KEY": KEY}
    config = write_workplace(workplace, endpoint, ["well"] * 60 + ["prose"] * 20)
    workplace.run("ingest", workplace.directory / "narratives.csv").expect(0)
    limit = workplace.database.stat().st_size + 20_000

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with workplace.start("run", config, "--max-wait", "0", environment=environment, preexec_fn=limit_files) as run:
        wait_until(
            lambda: not run.is_running or "results cannot be stored" in run.read_err(),
            what="the disk is full",
            at_most_s=30,
        )
        beside = search(workplace, [])
        run.kill()
        stopped = run.wait()

    found = beside | search(workplace, [stopped])
    assert not found, sorted(found)
    measured("0 hits with the disk full")


def test_the_search_finds_what_must_not_be_there(workplace: Workplace, endpoint: TalkativeEndpoint) -> None:
    config = write_workplace(workplace, endpoint, ["well"])
    workplace.run("run", config, environment={"OPENAI_API_KEY": KEY}).expect(0)
    logs = next(workplace.directory.rglob("run.log"))
    logs.write_text(logs.read_text() + f"{KEY} {NARRATIVE} {PROMPT}")
    with closing(sqlite3.connect(workplace.database)) as database, database:
        database.execute("UPDATE experiments SET notes = ?", (KEY,))

    found = {place.split(" ")[0] for place in search(workplace, [])}

    assert found == {"key", "narrative", "prompt"}
    assert any("experiments.db" in place for place in search(workplace, []))


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("binds", 0, ["json_schema is supported", "json_object is supported"]),
        ("ignores", 0, ["json_schema is accepted and ignored", "json_object is accepted and ignored"]),
        ("refuses", 78, ["json_schema is refused", "json_object is refused"]),
        ("cut", 0, ["json_schema cannot be told", "json_object cannot be told"]),
    ],
)
def test_the_doctor_says_whether_answers_can_be_bound_to_json(
    workplace: Workplace, mode: str, code: int, words: list[str]
) -> None:
    def reply(said: str, request: Mapping[str, Any]) -> Answer:
        kind = request.get("response_format", {}).get("type")
        if kind is None or mode == "ignores":
            return 200, {}, chat("OK")
        if mode == "refuses":
            return 400, {}, json.dumps({"error": {"message": "no such thing", "param": "response_format"}}).encode()
        if mode == "cut":
            return 200, {}, chat('{"is_', choice={"finish_reason": "length"})
        return 200, {}, chat('{"is_probe": true}')

    with talkative_endpoint({"well": reply}) as endpoint:
        write_workplace(workplace, endpoint, ["well"])
        config = workplace.write_config(
            url=endpoint.url,
            narratives=workplace.directory / "narratives.csv",
            model__response_format={"type": "json_object"},
            model__max_tokens=3000,
        )
        told = workplace.run("doctor", config).expect(code)

    for sentence in words:
        assert f"structured output: {sentence}" in told.out
    assert len(endpoint.requests) == 3
    assert NARRATIVE_PART not in json.dumps(endpoint.requests)
    assert PROMPT_PART not in json.dumps(endpoint.requests)
    assert ("take `model.response_format` out" in told.out) == (mode == "refuses")
