"""Owns what several rings of tests build on: made-up narratives, sources over them, and experiments."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from narrun_async.clock import utc_now
from narrun_async.models import (
    Experiment,
    ExperimentId,
    NarrativeType,
    NewExperiment,
    RunMode,
    RunStart,
    Selection,
    SourceNarrative,
    SourceSummary,
)
from narrun_async.ports import Store

pytest_plugins = ["reliability"]

# machines are shared: how long it takes to draw a case, or to try it, says nothing of the program
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

#: need programs that only `make test-desktop` and `make test-real` install; collected where they are named
collect_ignore = ["desktop", "real"]


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Tests that run beside each other report in UTF-8, and what some of them log holds half characters."""
    return _escaped((yield))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_escaped, value))
    return value


@dataclass(frozen=True, kw_only=True)
class ListSource:
    """`ports.NarrativeSource` over narratives in memory."""

    path: str
    checksum: str
    narratives: Sequence[SourceNarrative]

    def iter_narratives(self) -> Iterator[SourceNarrative]:
        return iter(self.narratives)

    def summary(self) -> SourceSummary:
        return SourceSummary(n_cases=len({one.incident_id for one in self.narratives}))


def make_narrative(number: int, *, text: str | None = None, prefix: str = "case") -> SourceNarrative:
    """Case `number // 2`, CME for even numbers and LE for odd ones; every third narrative is labelled positive."""
    kind = NarrativeType.LE if number % 2 else NarrativeType.CME
    canonical = text or f"Synthetic account {prefix}-{number:05d}: a person was found at home, {number} days later."
    return SourceNarrative(
        incident_id=f"{prefix}{number // 2}",
        narrative_type=kind,
        narrative_text=canonical,
        text_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
        manual_flag_ind=int(number % 3 == 0),
        manual_flag=int(number // 2 % 3 == 0),
        row=number // 2 + 2,
    )


def make_source(narratives: int | Sequence[SourceNarrative], *, path: str = "data/made_up.xlsx") -> ListSource:
    """A source of that many narratives, or of these; its checksum depends on all they hold."""
    listed = [make_narrative(number) for number in range(narratives)] if isinstance(narratives, int) else narratives
    digest = hashlib.sha256(repr([(one.incident_id, one.text_sha256, one.row) for one in listed]).encode())
    return ListSource(path=path, checksum=digest.hexdigest(), narratives=list(listed))


def new_experiment(number: int = 1, **changes: object) -> NewExperiment:
    """A complete row of `experiments`; `changes` are its fields."""
    created = NewExperiment(
        experiment_id=ExperimentId(f"00000000-0000-4000-8000-{number:012d}"),
        experiment_name="made up",
        model_name="model-of-tests",
        model_provider="simulated",
        temperature=0.2,
        system_prompt="You read accounts.",
        user_template="Read: <<TEXT>>",
        prompt_version="v1",
        prompt_author="tests",
        run_seed=7,
        data_file="data/made_up.xlsx",
        data_checksum="",
        cohort_last_narrative_id=0,  # type: ignore[arg-type]  # replaced by the caller
        n_narratives_total=0,
        api_url="http://127.0.0.1:1/v1/chat/completions",
        log_dir="logs/experiments/made-up",
        notes=None,
        config_json="{}",
        config_sha256="0" * 64,
        config_file=None,
        os_info="Linux",
        hostname="localhost",
        narrun_version="0.0.0",
        python_version="3.11",
        created_at="2026-01-02 03:04:05",
    )
    return replace(created, **changes)  # type: ignore[arg-type]  # the names are fields


async def open_experiment(
    store: Store, checksum: str, *, number: int = 1, max_narratives: int | None = None, **changes: object
) -> Experiment:
    """Create an experiment over a data source that is in the store already."""
    cohort = await store.load_cohort(checksum, max_narratives=max_narratives)
    new = new_experiment(
        number,
        data_checksum=checksum,
        cohort_last_narrative_id=cohort.last_narrative_id,
        n_narratives_total=cohort.n_narratives,
        **changes,
    )
    await store.create_experiment(new)
    return await store.load_experiment(new.experiment_id)


def make_run_start(experiment: Experiment, selection: Selection = Selection.MISSING) -> RunStart:
    return RunStart(
        experiment_id=experiment.experiment_id,
        mode=RunMode.NEW if selection is Selection.MISSING else RunMode.RETRY_ERRORS,
        selection=selection,
        host="localhost",
        pid=1,
        narrun_version="0.0.0",
        concurrency=8,
        api_url="http://127.0.0.1:1/v1/chat/completions",
        api_url_overridden=False,
        started_at=utc_now(),
    )


@dataclass(frozen=True, kw_only=True)
class Build:
    """The builders above, for tests that cannot import a conftest."""

    narrative: Callable[..., SourceNarrative] = make_narrative
    source: Callable[..., ListSource] = make_source
    new_experiment: Callable[..., NewExperiment] = new_experiment
    experiment: Callable[..., Awaitable[Experiment]] = open_experiment
    run_start: Callable[..., RunStart] = make_run_start


@pytest.fixture(scope="session")
def build() -> Build:
    return Build()
