"""Summaries, experiments and runs in lines and mappings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from narrun_async.metrics import ConfusionCounts, compute_metrics
from narrun_async.models import (
    Cohort,
    Experiment,
    ExperimentId,
    ExperimentStatus,
    NarrativeId,
    ResultCounts,
    RunId,
    RunRecord,
)
from narrun_async.reporting.summary import ExperimentSummary
from narrun_async.reporting.tables import (
    SIMULATED_NOTICE,
    ExperimentLine,
    experiment_json,
    experiment_lines,
    experiments_lines,
    runs_json,
    runs_lines,
    summary_json,
    summary_lines,
)

PROMPT = "CANARY: decide whether"


def summary(confusion: ConfusionCounts, counts: ResultCounts, **errors: int) -> ExperimentSummary:
    return ExperimentSummary(
        counts=counts,
        confusion=confusion,
        metrics=compute_metrics(confusion),
        n_detected=56,
        n_not_detected=348,
        errors=errors,
        prompt_tokens=1_200_000,
        completion_tokens=34_000,
    )


BEST = summary(ConfusionCounts(tp=42, fp=14, fn=6, tn=342), ResultCounts(n_total=404, n_success=404, n_errors=0))


def experiment(**changes: object) -> Experiment:
    columns: dict[str, object] = {
        "model_name": "small-model",
        "api_url": "http://localhost:1234/v1/chat/completions",
        "temperature": 0.0,
        "run_seed": None,
        "notes": "",
        "system_prompt": PROMPT,
        "user_template": "CANARY <<TEXT>>",
        "config_json": '{"p": "CANARY"}',
        "status": "running",
    }
    return Experiment(
        experiment_id=ExperimentId("3f2a9c10-0000-4000-8000-000000000001"),
        name="pilot",
        status=ExperimentStatus.RUNNING,
        cohort=Cohort(data_checksum="c0ffee", last_narrative_id=NarrativeId(35_312), n_narratives=35_312),
        config_json='{"p": "CANARY"}',
        config_sha256="5ha",
        log_dir="logs/x",
        created_at="2024-01-01 00:00:00",
        columns=columns | changes,
    )


def run(number: int, **changes: object) -> RunRecord:
    record = RunRecord(
        run_id=RunId(number),
        mode="new",
        selection="missing",
        concurrency=8,
        started_at="2024-01-01T10:00:00.123+00:00",
        ended_at="2024-01-01T11:00:00.123+00:00",
        runtime_s=3600.0,
        n_saved=1000,
        exit_code=130,
        ended_why="stopped by SIGINT",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


# --- lines -----------------------------------------------------------------------------------------------------------


def test_summary_gives_every_measure_with_its_denominator() -> None:
    assert summary_lines(BEST, simulated=False) == [
        "rows       404 of 404: 404 answers, 0 errors",
        "detected   56 yes, 348 no",
        "labels     404 rows with an answer and a label: TP 42, FP 14, FN 6, TN 342",
        "accuracy   0.950 (384 of 404 labelled rows)",
        "precision  0.750 (42 of 56 detected)",
        "recall     0.875 (42 of 48 labelled positive)",
        "F1         0.808 (84 of 104 = 2 TP + FP + FN)",
        "tokens     1,234,000 (1,200,000 prompt, 34,000 completion)",
    ]


def test_summary_tells_errors_and_what_is_missing() -> None:
    counts = ResultCounts(n_total=2000, n_success=1500, n_errors=3)
    lines = summary_lines(summary(BEST.confusion, counts, timeout=1, refusal=2), simulated=False)
    assert lines[:3] == [
        "rows       1,503 of 2,000: 1,500 answers, 3 errors",
        "missing    497 narratives have no row yet",
        "errors     refusal 2, timeout 1",
    ]


def test_summary_tells_how_many_answers_came_on_a_second_try_if_any_did() -> None:
    rescued = replace(BEST, n_second_tries=7)
    assert "second try  7 of the answers came when asked for once more" in summary_lines(rescued, simulated=False)
    assert not any("second try" in line for line in summary_lines(BEST, simulated=False))
    assert summary_json(rescued, simulated=False)["n_second_tries"] == 7


def test_summary_without_labels_shows_no_measure() -> None:
    unlabelled = summary(ConfusionCounts(tp=0, fp=0, fn=0, tn=0), BEST.counts)
    lines = summary_lines(unlabelled, simulated=False)
    assert "labels    no row with an answer has a manual label; there is nothing to compare" in lines
    assert not any(line.startswith(("accuracy", "F1")) for line in lines)


def test_a_measure_without_a_denominator_is_undefined_and_not_zero() -> None:
    nothing_found = summary(ConfusionCounts(tp=0, fp=0, fn=5, tn=10), BEST.counts)
    lines = summary_lines(nothing_found, simulated=False)
    assert "precision  undefined (0 detected)" in lines
    assert "recall     0.000 (0 of 5 labelled positive)" in lines


def test_simulated_answers_are_said_to_mean_nothing() -> None:
    assert summary_lines(BEST, simulated=True)[-1] == SIMULATED_NOTICE
    assert "mean nothing" in SIMULATED_NOTICE
    assert SIMULATED_NOTICE not in summary_lines(BEST, simulated=False)


def test_experiments_are_listed_with_the_status_that_is_shown_and_counted_rows() -> None:
    lines = experiments_lines(
        [
            ExperimentLine(
                experiment=experiment(),
                status=ExperimentStatus.INTERRUPTED,
                counts=ResultCounts(n_total=35_312, n_success=12_000, n_errors=345),
            )
        ]
    )
    assert lines == [
        "id        name   status         done   total      %  errors  created",
        "3f2a9c10  pilot  interrupted  12,345  35,312  34.9%     345  2024-01-01 00:00:00",
    ]


def test_an_empty_list_says_so() -> None:
    assert experiments_lines([]) == ["no experiments yet"]


def test_a_long_or_hostile_name_stays_in_its_column() -> None:
    hostile = replace(experiment(), name="\x1b[2J\n" + "x" * 200)
    counts = ResultCounts(n_total=1, n_success=1, n_errors=0)
    lines = experiments_lines([ExperimentLine(experiment=hostile, status=ExperimentStatus.COMPLETED, counts=counts)])
    assert len(lines) == 2
    assert all(line.isprintable() and len(line) < 120 for line in lines)
    assert "?[2J?xxx" in lines[1]


def test_one_experiment_shows_its_settings_and_prompts_by_length_and_checksum_only() -> None:
    lines = experiment_lines(experiment(), status=ExperimentStatus.INTERRUPTED, runs=[])
    text = "\n".join(lines)
    assert "CANARY" not in text
    checksum = hashlib.sha256(PROMPT.encode()).hexdigest()[:12]
    assert f"system prompt  {len(PROMPT)} characters, sha256 {checksum}" in lines
    assert "experiment     3f2a9c10-0000-4000-8000-000000000001" in lines
    assert "status         interrupted" in lines
    assert "temperature    0.0" in lines
    assert "cohort         35,312 narratives, up to narrative_id 35312" in lines
    assert not any(line.startswith(("seed", "notes")) for line in lines)


def test_an_experiment_of_the_predecessor_without_our_columns_can_be_shown() -> None:
    bare = replace(experiment(), columns={}, config_json=None)
    lines = experiment_lines(bare, status=ExperimentStatus.COMPLETED, runs=[])
    assert "system prompt  none" in lines
    assert lines[-1] == "no runs recorded"


def test_runs_are_listed_with_their_sums_and_a_killed_run_is_told() -> None:
    killed = run(2, mode="resume", ended_at=None, exit_code=None, ended_why=None, runtime_s=7.3, n_saved=234)
    lines = runs_lines([run(1), killed])
    assert lines[1].split()[:4] == ["1", "new", "missing", "8"]
    assert "2024-01-01 10:00:00  1:00:00  1,000   130  stopped by SIGINT" in lines[1]
    assert lines[2].endswith("7.3 s    234     -  no end recorded: still running, or killed")
    assert lines[3].split() == ["all", "1:00:07", "1,234"]


# --- mappings --------------------------------------------------------------------------------------------------------


def test_mappings_are_json_and_hold_no_prompt() -> None:
    counts = ResultCounts(n_total=10, n_success=7, n_errors=1)
    document = json.dumps(
        {
            "summary": summary_json(BEST, simulated=True),
            "experiment": experiment_json(experiment(), status=ExperimentStatus.INTERRUPTED, counts=counts),
            "runs": runs_json([run(1)]),
        },
        allow_nan=False,
    )
    assert "CANARY" not in document
    read = json.loads(document)
    assert read["summary"]["metrics"]["recall"] == 0.875
    assert read["summary"]["simulated"] is True
    assert read["experiment"]["experiment_id"] == "3f2a9c10-0000-4000-8000-000000000001"
    assert (read["experiment"]["status"], read["experiment"]["columns"]["status"]) == ("interrupted", "running")
    found = {"n_total": 10, "n_success": 7, "n_errors": 1, "n_skipped": 0, "n_copied": 0, "n_missing": 2}
    assert read["experiment"]["counts"] == found
    assert read["experiment"]["prompts"]["system_prompt"] == {
        "characters": len(PROMPT),
        "sha256": hashlib.sha256(PROMPT.encode()).hexdigest(),
    }
    assert read["runs"][0]["ended_why"] == "stopped by SIGINT"


def test_counts_are_left_out_where_nobody_counted() -> None:
    assert "counts" not in experiment_json(experiment(), status=ExperimentStatus.COMPLETED)
