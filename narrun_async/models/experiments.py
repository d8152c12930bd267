"""Experiments with their cohorts, and runs: the lives of processes that work on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from narrun_async.models.ids import ExperimentId, NarrativeId, RunId


class ExperimentStatus(StrEnum):
    """`experiments.status`; the transitions are in `statuses`."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    COMPLETED = "completed"


class Selection(StrEnum):
    """Which part of the cohort a run works on."""

    MISSING = "missing"
    ERRORS = "errors"
    MISSING_AND_ERRORS = "missing+errors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The frozen set of narratives of an experiment."""

    data_checksum: str
    last_narrative_id: NarrativeId
    n_narratives: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One frozen configuration over one frozen cohort, as stored."""

    experiment_id: ExperimentId
    name: str
    #: as stored; `running` with a free lock means interrupted
    status: ExperimentStatus
    cohort: Cohort
    #: the snapshot: canonical JSON of the frozen part of the configuration; None for the predecessor's rows
    config_json: str | None = field(repr=False)
    config_sha256: str | None
    log_dir: str | None
    created_at: str
    #: every column of the `experiments` row, for display and export
    columns: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExperiment:
    """An experiment to create; the fields are the columns of its row."""

    experiment_id: ExperimentId
    experiment_name: str
    model_name: str
    model_provider: str
    temperature: float
    system_prompt: str | None = field(repr=False)
    user_template: str = field(repr=False)
    prompt_version: str | None
    prompt_author: str | None
    run_seed: int | None
    data_file: str
    data_checksum: str
    cohort_last_narrative_id: NarrativeId
    n_narratives_total: int
    api_url: str | None
    log_dir: str
    notes: str | None
    config_json: str = field(repr=False)
    config_sha256: str
    config_file: str | None
    os_info: str
    hostname: str
    narrun_version: str
    python_version: str
    #: local `YYYY-MM-DD HH:MM:SS`
    created_at: str


class RunMode(StrEnum):
    """Why a run was started."""

    NEW = "new"
    RESUME = "resume"
    RETRY_ERRORS = "retry-errors"
    #: none of ours: what the predecessor did, recorded when its experiment was taken up
    LEGACY = "r"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """A process life that begins; the fields are columns of `runs`."""

    experiment_id: ExperimentId
    mode: RunMode
    selection: Selection
    host: str
    pid: int
    narrun_version: str
    #: calls in flight, or `auto`
    concurrency: int | str
    api_url: str
    api_url_overridden: bool
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a process life ended."""

    status: ExperimentStatus
    ended_at: datetime
    runtime_s: float
    exit_code: int
    #: one sentence
    ended_why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One row of `runs`, for people."""

    run_id: RunId
    mode: str
    selection: str
    #: calls in flight, or `auto`
    concurrency: int | str | None
    #: UTC, ISO 8601
    started_at: str
    ended_at: str | None
    runtime_s: float
    n_saved: int
    exit_code: int | None
    ended_why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressMark:
    """What the writer notes beside each batch for whoever watches the database."""

    runtime_s: float
    #: local `YYYY-MM-DD HH:MM:SS`; None while there is no rate yet
    estimated_completion_time: str | None


_BEFORE_ALL = NarrativeId(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCursor:
    """Where a sweep over the cohort stands: the last narrative seen and its rank."""

    narrative_id: NarrativeId = _BEFORE_ALL
    row_num: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCounts:
    """Rows of an experiment, counted."""

    n_total: int
    n_success: int
    n_errors: int

    @property
    def n_missing(self) -> int:
        return self.n_total - self.n_success - self.n_errors

    def remaining(self, selection: Selection) -> int:
        """The size of the remaining set."""
        match selection:
            case Selection.MISSING:
                return self.n_missing
            case Selection.ERRORS:
                return self.n_errors
            case Selection.MISSING_AND_ERRORS:
                return self.n_missing + self.n_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryCounts:
    """Narratives that were asked again in mid-run, and what became of their answers."""

    n_asked: int = 0
    #: gave a usable answer, which can be compared with the stored result
    n_answered: int = 0
    #: said the opposite of the stored result
    n_flipped: int = 0
