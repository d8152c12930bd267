"""What a real server makes of a second try: the same answer to its end, or another one."""

from __future__ import annotations

from harness import Workplace
from questions import BOUNDED_NUMBER, CLOSING, response_format, write_config
from serving import LlamaServer

NARRATIVES = 24
#: fewer than the shortest answer of the schema; twice as many are enough for some
TOO_FEW_TOKENS = 74


def test_answers_that_a_limit_cuts_off_go_on_to_twice_as_many_tokens_and_some_come_whole(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES, model__max_tokens=TOO_FEW_TOKENS, model__seed=3)

    workplace.run("run", config).expect(1)

    rows = workplace.rows().values()
    assert {(row["parse_method"], row["error_category"], row["attempt_count"]) for row in rows} == {
        ("json+second_try", None, 2),
        (None, "truncated", 2),
    }
    calls = workplace.ask("SELECT error_category, completion_tokens FROM attempts ORDER BY narrative_id, attempt_id")
    assert {(call["error_category"], call["completion_tokens"]) for call in calls[::2]} == {
        ("truncated", TOO_FEW_TOKENS)
    }
    assert {call["completion_tokens"] for call in calls[1::2] if call["error_category"]} == {2 * TOO_FEW_TOKENS}
    assert all(TOO_FEW_TOKENS < call["completion_tokens"] <= 2 * TOO_FEW_TOKENS for call in calls[1::2])


def test_with_a_seed_the_longer_answer_begins_with_the_shorter_one(server: LlamaServer) -> None:
    shape = response_format(CLOSING)
    short, long = (
        server.chat("A made-up account.", response_format=shape, seed=3, max_tokens=n).body["choices"][0]["message"]
        for n in (TOO_FEW_TOKENS, 2 * TOO_FEW_TOKENS)
    )
    assert long["content"].startswith(short["content"]) and len(long["content"]) > len(short["content"])


def test_an_answer_beyond_its_bounds_is_asked_for_once_more_and_no_oftener(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES, schema=BOUNDED_NUMBER, model__seed=3)

    workplace.run("run", config).expect(1)  # noise is seldom between 0 and 1, the second time no more than the first

    rows = workplace.rows().values()
    assert {row["attempt_count"] for row in rows} <= {1, 2}
    assert all(
        (row["attempt_count"] == 2) == bool(row["error_occurred"]) or row["detected"] is not None for row in rows
    )
    answers = workplace.ask(
        "SELECT COUNT(*) AS n FROM attempts WHERE error_category IN ('confidence_out_of_range', 'bad_json')"
    )
    n_errors = sum(row["error_occurred"] for row in rows)
    assert answers[0]["n"] == 2 * n_errors + sum("second_try" in (row["parse_method"] or "") for row in rows)
    workplace.run("verify").expect(0)
