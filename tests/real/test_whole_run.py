"""An experiment from its first narrative to its last, against a server that people run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from harness import Workplace
from questions import CLOSING, write_config
from serving import SLOTS, LlamaServer

NARRATIVES = 200


def is_valid_json(content: str) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def test_200_narratives_under_a_schema_end_completed_with_valid_json_in_99_of_100_calls(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES)

    run = workplace.run("run", config, "--concurrency", str(SLOTS))

    rows = workplace.rows().values()
    calls = int(workplace.ask_one("SELECT COUNT(*) FROM attempts"))
    answers = [json.loads(row["raw_response"])["choices"][0]["message"]["content"] for row in rows]
    valid = sum(map(is_valid_json, answers))
    share, rate = valid / calls, NARRATIVES / workplace.ask_one("SELECT runtime_s FROM runs")
    print(
        f"valid JSON in {valid} of {calls} calls under json_schema ({share:.1%}), {rate:.0f} answers/s on {SLOTS} slots"
    )
    assert share >= 0.99

    n_errors = workplace.count_errors()
    run.expect(1 if n_errors else 0)
    assert len(rows) == NARRATIVES and n_errors <= NARRATIVES - valid
    experiment = workplace.experiment()
    assert (experiment["status"], experiment["n_errors"]) == ("completed", n_errors)
    assert "completed" in run.out


def test_a_row_keeps_what_the_server_says_of_itself_and_of_the_answer(
    workplace: Workplace, server: LlamaServer, model: Path
) -> None:
    config = write_config(workplace, server.url, narratives=8)

    workplace.run("run", config, "--concurrency", "2").expect(0)

    for row in workplace.rows().values():
        assert (row["finish_reason"], row["response_model"]) == ("stop", str(model))
        assert row["system_fingerprint"].startswith("b")
        # every token is a byte, so the prompt is at least as long as the narrative
        assert len(row["narrative_text"]) < row["prompt_tokens"] < 400
        assert 40 < row["completion_tokens"] < 400
        assert row["tokens_used"] == row["prompt_tokens"] + row["completion_tokens"]
        assert row["parse_method"] == "json"
        assert row["confidence"] in CLOSING["properties"]["confidence"]["enum"]
        assert len(json.loads(row["indicators"])) <= CLOSING["properties"]["indicators"]["maxItems"]
        assert {"timings", "usage"} <= json.loads(row["raw_response"]).keys()
    # what one slot has read before, it need not read again
    assert max(row["cached_tokens"] for row in workplace.rows().values()) > 0
    assert workplace.ask("SELECT model, server FROM servings") == [{"model": str(model), "server": "llama.cpp"}]


def test_a_connection_that_the_server_closes_after_its_hundredth_answer_costs_no_call(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=105)

    workplace.run("run", config, "--concurrency", "1").expect(0)

    attempts = Counter(row["attempt_count"] for row in workplace.rows().values())
    assert attempts == {1: 105}
    assert workplace.ask_one("SELECT COUNT(*) FROM attempts") == 105
