"""Owns material for reports: what `app` would gather of an experiment, from rows and calls that a test makes up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from narrun_async.analysis.cohort import LabelSet, manual_flags
from narrun_async.analysis.evaluation import Evaluating
from narrun_async.analysis.evaluation_tree import Subject
from narrun_async.analysis.levels import FindValidity, own_validity
from narrun_async.analysis.report import analyse_for_report
from narrun_async.analysis.resampling import Bootstrap
from narrun_async.models import (
    CallRecord,
    CanaryCounts,
    Cohort,
    CohortRow,
    DataSource,
    Experiment,
    ExperimentId,
    ExperimentStatus,
    NarrativeId,
    RunId,
    RunRecord,
    Serving,
    ServingUse,
)
from narrun_async.reporting.html.blocks import (
    Block,
    Bullets,
    Cards,
    CrossTable,
    Facts,
    Figure,
    FlowChart,
    Fold,
    Gallery,
    Page,
    Section,
    Table,
)
from narrun_async.reporting.html.material import ReportMaterial

SYSTEM_PROMPT = "You read accounts of deaths, and answer as JSON."
BEGAN = datetime(2026, 3, 4, 8, 0, tzinfo=UTC)


def make_experiment(name: str = "made up", **columns: object) -> Experiment:
    """An experiment of a real model; `columns` are those of its row."""
    known: dict[str, object] = {
        "model_name": "model-of-tests",
        "model_provider": "lmstudio",
        "api_url": "http://localhost:1234/v1/chat/completions",
        "temperature": 0.2,
        "prompt_author": "tests",
        "config_file": "/home/somebody/study/pilot.yaml",
    }
    return Experiment(
        experiment_id=ExperimentId("3f2a9c10-0000-4000-8000-000000000001"),
        name=name,
        status=ExperimentStatus.COMPLETED,
        cohort=Cohort(data_checksum="c" * 64, last_narrative_id=NarrativeId(1), n_narratives=1),
        config_json="{}",
        config_sha256="5" * 64,
        log_dir=None,
        created_at="2026-03-04 09:00:00",
        columns=known | columns,
    )


def make_calls(n: int, *, run_id: int = 1, began: datetime = BEGAN, failed: int = 0) -> list[CallRecord]:
    """Calls of two seconds each, one begun every second; the first ones fail."""
    return [
        CallRecord(
            run_id=run_id,
            started_at=began + timedelta(seconds=number),
            duration_s=2.0,
            error_category="server_error" if number < failed else None,
        )
        for number in range(n)
    ]


def make_run(run_id: int = 1, **changes: Any) -> RunRecord:
    return replace(
        RunRecord(
            run_id=RunId(run_id),
            mode="new",
            selection="missing",
            concurrency=8,
            started_at="2026-03-04T08:00:00.000+00:00",
            ended_at="2026-03-04T08:10:00.000+00:00",
            runtime_s=600.0,
            n_saved=10,
            exit_code=0,
            ended_why="completed",
            host="workstation",
            narrun_version="0.1.0",
            api_url="http://localhost:1234/v1/chat/completions",
        ),
        **changes,
    )


def make_material(
    rows: Sequence[CohortRow],
    *,
    calls: Sequence[CallRecord] = (),
    suppress_below: int | None = None,
    n_resamples: int = 0,
    remarks: Sequence[str] = (),
    is_simulated: bool = False,
    find_validity: FindValidity = own_validity,
    labels: LabelSet | None = None,
    **changes: Any,
) -> ReportMaterial:
    """What a report on these rows is written from; `changes` are fields of it."""
    experiment = changes.pop("experiment", make_experiment())
    evaluating = Evaluating(
        subject=Subject(experiment_id=experiment.experiment_id, name=experiment.name, is_simulated=is_simulated),
        bootstrap=Bootstrap(n_resamples=n_resamples, seed=1),
        labels=labels or manual_flags(rows),
        find_validity=find_validity,
        remarks=remarks,
    )
    material = ReportMaterial(
        experiment=experiment,
        status=ExperimentStatus.COMPLETED,
        is_simulated=is_simulated,
        source=DataSource(
            path="/home/somebody/data/cases.xlsx",
            checksum="c" * 64,
            n_narratives=len(rows),
            loaded_at="2026-03-03 10:00:00",
        ),
        ingest=None,
        screening=None,
        canaries=CanaryCounts(),
        prompt_tokens=12_000,
        completion_tokens=3_000,
        n_batched_calls=0,
        analysis=analyse_for_report(rows, calls, evaluating, suppress_below=suppress_below),
        settings={"model.temperature": "0.2", "privacy.allow_remote": "false"},
        system_prompt=SYSTEM_PROMPT,
        user_template="Read: <<TEXT>>",
        approval_note=None,
        runs=[make_run()],
        servings=[
            ServingUse(
                serving=Serving(model="model-of-tests", system_fingerprint="fp_1", server="uvicorn"),
                run_id=1,
                first_seen_at="2026-03-04T08:00:01.000+00:00",
                n_results=len(rows),
            )
        ],
        n_configurations=1,
        reviews=[],
        scrub=None,
        indicators=None,
        written_at=datetime(2026, 3, 5, 12, 0, tzinfo=UTC),
        narrun_version="0.1.0",
    )
    return replace(material, **changes)


# --- looking into a page ---------------------------------------------------------------------------------------------


def section(page: Page, slug: str) -> Section:
    return next(one for one in page.sections if one.slug == slug)


def blocks_of(blocks: Sequence[Block]) -> list[Block]:
    """Every block, those within others, too."""
    found: list[Block] = []
    for block in blocks:
        found.append(block)
        if isinstance(block, Gallery):
            found += blocks_of(block.items)
        if isinstance(block, Fold):
            found += blocks_of(block.blocks)
        if isinstance(block, Figure) and block.numbers is not None:
            found.append(block.numbers)
    return found


def words_of(blocks: Sequence[Block]) -> str:
    """All that some blocks say, as one text."""
    said: list[str] = []
    for block in blocks_of(blocks):
        match block:
            case Table():
                cells = [cell for row in block.rows for cell in (row.head, *row.cells)]
                said += [block.caption, *block.head, *cells, *block.notes]
            case Cards():
                said += [text for card in block.items for text in (card.label, card.value, card.detail)]
            case Facts():
                said += [text for fact in block.items for text in (fact.name, fact.value)]
            case Bullets():
                said += block.items
            case CrossTable():
                said += [block.caption, *(cell.count for cell in block.cells), *block.margins]
            case Figure():
                said += [block.title, block.caption, block.description]
            case FlowChart():
                boxes = [box for step in block.steps for box in (step.box, step.leaves) if box] + list(block.outcomes)
                said += [text for box in boxes for text in (box.title, box.count, *box.lines)]
            case Fold():
                said.append(block.summary)
            case Gallery():
                pass
            case _:
                said.append(block.text)
    return "\n".join(said)


def words_of_page(page: Page) -> str:
    said = [page.title, page.subtitle, *(aside.text for aside in page.asides)]
    return "\n".join([*said, *(words_of(one.blocks) for one in page.sections)])
