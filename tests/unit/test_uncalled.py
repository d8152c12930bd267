"""Promises about narratives that take no call: how they are counted, foretold, planned and told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from narrun_async.config import RunSection, parse_config
from narrun_async.errors import ConfigurationError, ExitCode
from narrun_async.finalizer import derived_columns
from narrun_async.metrics import ConfusionCounts, compute_metrics
from narrun_async.models import (
    Attempt,
    Copy,
    Detection,
    ExperimentStatus,
    FlagCounts,
    NarrativeId,
    Outcome,
    ResultCounts,
    Skip,
    SkipReason,
    UncalledCounts,
    Usage,
    WorkItem,
)
from narrun_async.operations.previewing import preview_file
from narrun_async.progress import Progress
from narrun_async.progress.display import render_line
from narrun_async.progress.live_view import live_lines, read_live_view
from narrun_async.reporting.banner import Banner, banner_lines
from narrun_async.reporting.summary import ExperimentSummary
from narrun_async.reporting.tables import summary_json, summary_lines
from narrun_async.screening import ScreeningRules
from narrun_async.sources.screening_rules import load_rules
from narrun_async.statuses import judge_run

SKIP = Skip(narrative_id=NarrativeId(1), row_num=1, reason=SkipReason.PLACEHOLDER)
ITEM = WorkItem(
    narrative_id=NarrativeId(7),
    row_num=7,
    incident_id="A-7",
    narrative_type="cme",
    narrative_text="synthetic",
    text_sha256=None,
    manual_flag_ind=None,
    manual_flag=None,
)


def copy_of(error_category: str | None = None) -> Copy:
    return Copy(
        narrative_id=NarrativeId(8),
        row_num=8,
        original_id=NarrativeId(7),
        error_category=error_category,
        replaces_error=False,
    )


def success() -> Outcome:
    attempt = Attempt(
        narrative_id=NarrativeId(7),
        started_at=datetime(2024, 1, 1, tzinfo=UTC),
        duration_s=1.0,
        error_category=None,
        error_message=None,
        http_status=200,
        charged=True,
        usage=Usage(prompt_tokens=10, completion_tokens=2),
    )
    return Outcome(item=ITEM, verdict=Detection(detected=False, confidence=0.5, parse_method="json"), attempt=attempt)


@pytest.fixture(scope="module")
def rules() -> ScreeningRules:
    return load_rules()


# --- progress --------------------------------------------------------------------------------------------------------


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_rows_without_a_call_are_saved_at_once_and_say_nothing_about_the_rate_or_the_time_left() -> None:
    clock = Clock()
    progress = Progress(n_done_before=0, n_remaining=2000, n_uncalled=1000, clock=clock)
    progress.record_saved([SKIP] * 900)
    first = progress.snapshot()
    assert (first.n_saved, first.n_skipped, first.n_done, first.n_total) == (900, 900, 900, 2000)
    assert (first.rate_per_s, first.eta_s) == (None, None)
    for _ in range(100):
        clock.now_s += 1
        progress.record_saved([success()] * 4)
    later = progress.snapshot()
    assert later.rate_per_s == pytest.approx(4.0)
    assert later.eta_s == pytest.approx(600 / 4)
    assert (later.prompt_tokens, later.completion_tokens) == (4000, 800)


def test_copied_errors_are_errors_of_the_run() -> None:
    progress = Progress(n_done_before=0, n_remaining=5, n_uncalled=3, clock=Clock())
    progress.record_saved([copy_of(), copy_of("refusal"), copy_of("refusal")])
    snapshot = progress.snapshot()
    assert (snapshot.n_saved, snapshot.n_copied, snapshot.errors) == (3, 3, {"refusal": 2})
    assert "3 copied" in render_line(snapshot)
    assert "skipped" not in render_line(snapshot)


def test_whoever_watches_a_run_is_told_of_them_and_a_run_of_an_older_version_can_be_watched(tmp_path: Path) -> None:
    limits = {"limit": 8, "is_auto": False, "pace_per_s": None, "is_paused": False, "history": []}
    view: dict[str, Any] = dict.fromkeys(("rate_per_s", "tokens_per_s", "eta_s", "latency_p50_s", "latency_p95_s"))
    view |= {"pid": 1, "experiment_id": "x", "written_at": "", "n_done": 9, "n_total": 9, "n_saved": 9}
    view |= {"in_flight": 0, "runtime_s": 1.0, "downtime_s": 0.0, "waiting_for": None, "limits": limits}
    path = tmp_path / "live.json"
    told = []
    for counts in ({}, {"n_skipped": 4, "n_copied": 2}):
        path.write_text(json.dumps(view | counts))
        found = read_live_view(path)
        assert found is not None
        told.append("\n".join(live_lines(found)))
    assert "no call" not in told[0]
    assert "4 skipped, 2 copied" in told[1]


# --- what a new experiment would come to -----------------------------------------------------------------------------

TEXTS = ("A made-up account.", "No report available.", "Another.", "A made-up account.", "No report available.", "N/A")


@pytest.mark.parametrize(
    ("run", "asked", "uncalled"),
    [
        pytest.param({}, [0, 1, 2, 3, 4, 5], (0, 0), id="everything is asked"),
        pytest.param({"skip_placeholders": True}, [0, 2, 3], (3, 0), id="no placeholders"),
        pytest.param({"ask_identical_once": True}, [0, 1, 2, 5], (0, 2), id="no repeats"),
        pytest.param({"skip_placeholders": True, "ask_identical_once": True}, [0, 2], (3, 1), id="neither"),
        pytest.param({"ask_identical_once": True, "max_narratives": 4}, [0, 1, 2], (0, 1), id="of a part"),
    ],
)
def test_a_file_that_is_not_loaded_is_foretold_as_it_would_be_run(
    build: Any, rules: ScreeningRules, run: dict[str, Any], asked: list[int], uncalled: tuple[int, int]
) -> None:
    narratives = [build.narrative(number, text=text) for number, text in enumerate(TEXTS)]
    twice = [*narratives, narratives[0]]
    preview = preview_file(twice, RunSection(**run), rules)
    assert preview.asked == asked
    assert (preview.uncalled.n_to_skip, preview.uncalled.n_to_copy) == uncalled
    assert preview.n_narratives == len(TEXTS)
    assert preview.n_to_ask == len(asked)
    assert preview.n_cohort == run.get("max_narratives", len(TEXTS))


# --- what people read ------------------------------------------------------------------------------------------------


def banner_of(**changes: Any) -> str:
    fields: dict[str, Any] = {
        "experiment_id": "id",
        "name": "made up",
        "mode": "new",
        "model": "m",
        "endpoint": "http://127.0.0.1/",
        "is_simulated": False,
        "is_overridden": False,
        "database": "d.db",
        "n_cohort": 900,
        "n_done": 0,
        "n_errors": 0,
        "n_skipped": 0,
        "n_to_ask": 900,
        "uncalled": UncalledCounts(),
        "placeholder_rules": None,
        "pace": "8 calls at a time",
        "answers": None,
        "log_dir": None,
    }
    return "\n".join(banner_lines(Banner(**(fields | changes))))


def test_the_banner_says_who_is_not_asked_and_why_and_nothing_where_everybody_is() -> None:
    uncalled = UncalledCounts(n_to_skip=50, n_to_copy=412)
    told = banner_of(n_to_ask=438, uncalled=uncalled, placeholder_rules="mine (sha256 abc)")
    assert "to do      438 narratives, 8 calls at a time" in told
    assert "no call    50 placeholders are skipped, by the rules mine (sha256 abc)" in told
    assert "no call    412 narratives have the text of another one, and get its answer" in told
    assert "no call" not in banner_of()
    assert "skipped" not in banner_of()


def summary_of(counts: ResultCounts, flags: FlagCounts | None) -> ExperimentSummary:
    confusion = ConfusionCounts(tp=0, fp=0, fn=0, tn=0)
    return ExperimentSummary(
        counts=counts,
        confusion=confusion,
        metrics=compute_metrics(confusion),
        n_detected=1,
        n_not_detected=5,
        errors={},
        prompt_tokens=0,
        completion_tokens=0,
        flags=flags,
    )


COUNTS = ResultCounts(n_total=20, n_success=8, n_errors=2, n_skipped=4, n_copied=3)
FLAGS = FlagCounts(n_placeholder=4, n_near_empty=1, n_truncated=0, n_identical=3)


def test_the_way_from_the_cohort_to_the_answers_is_counted_step_by_step() -> None:
    flow = summary_json(summary_of(COUNTS, FLAGS), simulated=False)["flow"]
    assert flow == {
        "eligible": 20,
        "placeholder": 4,
        "near_empty": 1,
        "truncated": 0,
        "identical": 3,
        "skipped": 4,
        "copied": 3,
        "sent": 7,
        "error": 2,
        "answered": 8,
        "missing": 6,
    }
    unseen: Any = summary_json(summary_of(COUNTS, None), simulated=False)["flow"]
    assert [unseen[name] for name in ("placeholder", "near_empty", "truncated", "identical")] == [None] * 4


def test_the_summary_names_skips_copies_and_doubtful_texts_only_where_there_are_any() -> None:
    told = "\n".join(summary_lines(summary_of(COUNTS, FLAGS), simulated=False))
    assert "14 of 20: 8 answers, 2 errors, 4 skipped" in told
    assert "3 of these are of narratives with the text of another one" in told
    assert "4 placeholders, 1 near-empty, 3 with the text of another narrative" in told
    plain = "\n".join(
        summary_lines(summary_of(ResultCounts(n_total=9, n_success=9, n_errors=0), None), simulated=False)
    )
    assert "9 of 9: 9 answers, 0 errors\n" in plain
    assert not any(word in plain for word in ("skipped", "copied", "texts", "placeholder"))


# --- columns, ends, settings -----------------------------------------------------------------------------------------


def test_a_skip_counts_as_done_and_makes_no_narrative_look_faster() -> None:
    columns = derived_columns(summary_of(COUNTS, FLAGS), runtime_s=70.0)
    assert (columns["n_narratives_processed"], columns["n_narratives_skipped"], columns["n_errors"]) == (14, 4, 2)
    assert columns["avg_time_per_narrative_sec"] == pytest.approx(10.0)  # seven were asked


def test_an_experiment_of_skips_and_answers_alone_is_completed_without_errors() -> None:
    counts = ResultCounts(n_total=10, n_success=7, n_errors=0, n_skipped=3)
    verdict = judge_run(counts, n_left=0, stopped_with=None, stopped_why="")
    assert (verdict.status, verdict.exit_code) == (ExperimentStatus.COMPLETED, ExitCode.COMPLETED)


RAW: dict[str, Any] = {
    "experiment": {"name": "made up"},
    "model": {"name": "m", "provider": "simulated", "temperature": 0.0},
    "prompt": {"version": "1", "user_template": "<<TEXT>>"},
    "data": {"file": "x.csv"},
    "run": {},
}


def test_nothing_is_skipped_or_copied_unless_the_configuration_says_so() -> None:
    def parsed(**run: Any) -> RunSection:
        raw = RAW | {"run": run}
        return parse_config(raw, read_text=lambda name: Path(name).name, origin="x.yaml", environment={}).run

    assert (parsed().skip_placeholders, parsed().ask_identical_once) == (False, False)
    assert parsed(skip_placeholders=True).skip_placeholders
    assert parsed(ask_identical_once=True).ask_identical_once
    with pytest.raises(ConfigurationError, match=r"run\.skip_placeholders.*true or false"):
        parsed(skip_placeholders="yes")
    with pytest.raises(ConfigurationError, match=r"did you mean `run\.skip_placeholders`"):
        parsed(skip_placeholder=True)
