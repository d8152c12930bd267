"""SIGKILL for the run, SIGKILL for the server under it: every narrative still gets exactly one answer."""

from __future__ import annotations

import json

from harness import Workplace, wait_until
from questions import CLOSING, write_config
from serving import LlamaServer

NARRATIVES = 80


def test_a_run_killed_in_mid_run_is_resumed_to_the_end_and_keeps_what_it_had(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES)
    with workplace.start("run", config, "--concurrency", "4") as run:
        workplace.wait_for_rows(20, run)
        run.kill()
    saved = workplace.rows()
    assert 20 <= len(saved) < NARRATIVES
    workplace.run("verify").expect(0)

    workplace.run("resume").expect(0)

    rows = workplace.rows()
    assert len(rows) == NARRATIVES
    assert {key: rows[key] for key in saved} == saved
    assert workplace.ask_one("SELECT COUNT(*) FROM attempts WHERE run_id = 2") == NARRATIVES - len(saved)
    assert workplace.count_errors() == 0
    assert workplace.experiment()["status"] == "completed"


def test_a_server_killed_twice_under_a_run_costs_no_error_row_and_no_resume(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES)
    with workplace.start("run", config, "--concurrency", "4") as run:
        for n_rows in (15, 45):
            workplace.wait_for_rows(n_rows, run)
            n_outages = count_outages(workplace)
            server.kill()
            wait_until(lambda before=n_outages: count_outages(workplace) > before, what="the run notices")
            assert run.is_running
            server.start()
        run.wait().expect(0)

    assert count_outages(workplace) >= 2
    assert len(workplace.rows()) == NARRATIVES
    assert workplace.count_errors() == 0
    assert workplace.experiment()["status"] == "completed"
    # what was in flight when it died was asked again, and that is in the ledger
    assert workplace.ask_one("SELECT COUNT(*) FROM attempts WHERE error_category IS NOT NULL") > 0


def test_a_run_killed_while_its_server_is_down_goes_on_when_both_are_back(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=40)
    with workplace.start("run", config, "--concurrency", "4") as run:
        workplace.wait_for_rows(10, run)
        server.kill()
        wait_until(lambda: count_outages(workplace) > 0, what="the run notices")
        run.kill()
    saved = workplace.rows()
    # a resume that finds nobody waits as long as it may, and stores nothing
    workplace.run("resume", "--max-wait", "1").expect(75)
    assert workplace.rows() == saved

    server.start()
    workplace.run("resume").expect(0)

    assert len(workplace.rows()) == 40
    assert workplace.count_errors() == 0


def test_a_resumed_run_asks_for_the_fields_in_the_order_in_which_the_experiment_did(
    workplace: Workplace, server: LlamaServer
) -> None:
    config = write_config(workplace, server.url, narratives=16)
    workplace.run("estimate", config, "-k", "8", "--keep").expect(75)
    workplace.run("resume").expect(0)

    # llama.cpp writes the fields in the order of the schema, so the answers show what it was sent
    assert orders_of_fields(workplace, run_id=1) == {tuple(CLOSING["properties"])}
    assert orders_of_fields(workplace, run_id=2) == {tuple(CLOSING["properties"])}


def count_outages(workplace: Workplace) -> int:
    (log,) = workplace.directory.glob("logs/experiments/*/run.log")
    return log.read_text(encoding="utf-8").count("the breaker opens")


def orders_of_fields(workplace: Workplace, *, run_id: int) -> set[tuple[str, ...]]:
    rows = workplace.ask("SELECT raw_response FROM narrative_results WHERE run_id = ?", run_id)
    assert rows
    answers = [json.loads(row["raw_response"])["choices"][0]["message"]["content"] for row in rows]
    return {tuple(json.loads(answer)) for answer in answers}
