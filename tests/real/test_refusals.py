"""What the server refuses and what it cuts short: the right exit code, the right category, and nothing lost."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from harness import Workplace
from questions import ANY_TEXT, BOUNDED_NUMBER, write_config
from serving import SLOT_TOKENS, LlamaServer

KEY = "sesame-1f0c9d3e7b"
WRONG_KEY = "guessed-5a2e88c41d"
NARRATIVES = 8
#: tokens of a request that are not its narrative; a token is a byte
AROUND_A_NARRATIVE = 50
#: tokens of the shortest answer that the schema allows
SHORTEST_ANSWER = 75


def add_narrative(workplace: Workplace, *, incident_id: str, n_bytes: int) -> None:
    """One more, of that length."""
    with (workplace.directory / "narratives.csv").open("a", encoding="utf-8", newline="") as file:
        sentence = "A long account goes on and on. "  # without "th", which is one token
        text = sentence * (n_bytes // len(sentence) + 1)
        csv.writer(file).writerow([incident_id, "cme", text[:n_bytes], 0])


def categories(workplace: Workplace) -> Counter[str | None]:
    return Counter(row["error_category"] for row in workplace.rows().values())


@pytest.mark.parametrize("given", [{}, {"OPENAI_API_KEY": WRONG_KEY}], ids=["no key", "wrong key"])
def test_a_server_that_wants_another_key_ends_the_run_with_78_no_rows_and_the_key_nowhere(
    given: dict[str, str], workplace: Workplace, model: Path
) -> None:
    with LlamaServer(model, workplace.directory / "server", api_key=KEY) as server:
        config = write_config(workplace, server.url, narratives=NARRATIVES)

        refused = workplace.run("run", config, environment=given).expect(78)

        assert "HTTP 401" in refused.err and "refuses the API key" in refused.err
        assert workplace.count_rows() == 0
        assert not any(WRONG_KEY in content for content in workplace.read_all_files())

        # with the right one the same experiment goes on
        workplace.run("resume", environment={"OPENAI_API_KEY": KEY}).expect(0)
    assert len(workplace.rows()) == NARRATIVES


def test_a_path_that_the_server_does_not_have_ends_the_run_with_78_and_no_rows(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, f"{server.url}/elsewhere/v1/chat/completions", narratives=NARRATIVES)

    refused = workplace.run("run", config).expect(78)

    assert "HTTP 404" in refused.err and "the path of the URL" in refused.err
    assert workplace.count_rows() == 0

    # the server is the same one, so the run may be told where it really is
    workplace.run("resume", "--api-url", server.url).expect(0)
    assert len(workplace.rows()) == NARRATIVES


def test_a_narrative_longer_than_the_context_is_one_error_row_until_the_server_has_a_longer_one(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES)
    add_narrative(workplace, incident_id="too-long", n_bytes=SLOT_TOKENS + 100)

    workplace.run("run", config, "--concurrency", "4").expect(1)

    assert categories(workplace) == {None: NARRATIVES, "context_length": 1}
    row = workplace.rows()["too-long", "cme"]
    assert row["detected"] is None and row["attempt_count"] == 1
    assert "exceed_context_size_error" in row["error_message"]
    assert workplace.experiment()["status"] == "completed"

    server.kill()
    server.start(slot_tokens=2 * SLOT_TOKENS)
    workplace.run("resume", workplace.experiment_id(), "--retry-errors-only").expect(0)

    assert categories(workplace) == {None: NARRATIVES + 1}
    assert workplace.rows()["too-long", "cme"]["first_error_message"] == row["error_message"]


def test_an_answer_that_the_context_has_no_room_for_is_truncated_and_kept(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES)
    left_over = SHORTEST_ANSWER - 15
    add_narrative(workplace, incident_id="nearly-too-long", n_bytes=SLOT_TOKENS - AROUND_A_NARRATIVE - left_over)

    workplace.run("run", config).expect(1)

    assert categories(workplace) == {None: NARRATIVES, "truncated": 1}
    row = workplace.rows()["nearly-too-long", "cme"]
    assert row["finish_reason"] == "length" and row["detected"] is None
    assert row["tokens_used"] == SLOT_TOKENS
    assert json.loads(row["raw_response"])["choices"][0]["finish_reason"] == "length"


def test_slots_that_share_too_small_a_cache_cost_tries_and_never_a_narrative(workplace: Workplace, model: Path) -> None:
    with LlamaServer(model, workplace.directory / "server", shared=True) as server:
        config = write_config(workplace, server.url, narratives=NARRATIVES)
        for number in range(NARRATIVES):  # any two of these fit into the cache at a time, and no three
            add_narrative(workplace, incident_id=f"long-{number}", n_bytes=SLOT_TOKENS * 2 // 5)

        workplace.run("run", config, "--concurrency", "4").expect(0)

    assert categories(workplace) == {None: 2 * NARRATIVES}
    failed = workplace.ask("SELECT DISTINCT error_category, http_status FROM attempts WHERE http_status <> 200")
    assert failed == [{"error_category": "server_error", "http_status": 500}]


def test_answers_that_max_tokens_cuts_off_are_truncated_rows_and_no_guesses(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES, model__max_tokens=30)

    workplace.run("run", config).expect(1)

    assert categories(workplace) == {"truncated": NARRATIVES}
    rows = workplace.rows().values()
    assert {(row["finish_reason"], row["detected"]) for row in rows} == {("length", None)}
    assert all(30 <= row["completion_tokens"] < SHORTEST_ANSWER for row in rows)
    # half an object decides nothing, even where it gets as far as the verdict
    assert any("detected" in row["raw_response"] for row in rows)


def test_a_number_whose_bounds_the_server_ignores_is_an_error_and_never_clamped(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES, schema=BOUNDED_NUMBER)

    workplace.run("run", config).expect(1)

    rows = workplace.rows().values()
    assert len(rows) == NARRATIVES
    assert {row["finish_reason"] for row in rows} == {"stop"}  # the server believes that all is well
    beyond = [row for row in rows if row["error_category"] is not None]
    assert {row["error_category"] for row in beyond} <= {"confidence_out_of_range", "bad_json"}
    assert len(beyond) > NARRATIVES / 2  # noise is seldom between 0 and 1
    assert all(0 <= row["confidence"] <= 1 for row in rows if row["error_category"] is None)


def test_a_server_that_fails_on_what_its_own_model_wrote_costs_tries_and_never_a_narrative(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(
        workplace,
        server.url,
        narratives=NARRATIVES,
        schema=ANY_TEXT,
        model__max_tokens=400,
        run__max_attempts=2,
        run__max_passes=1,
    )

    workplace.run("run", config).expect(1)

    assert len(workplace.rows()) == NARRATIVES
    assert set(categories(workplace)) <= {None, "truncated", "transient_exhausted"}
    failed = workplace.ask("SELECT error_category, http_status, charged FROM attempts WHERE http_status <> 200")
    assert {(call["error_category"], call["http_status"]) for call in failed} == {("server_error", 500)}
    assert sum(call["charged"] for call in failed) <= 2 * NARRATIVES
    assert workplace.experiment()["status"] == "completed"
