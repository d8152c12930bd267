"""Tells what a new experiment would ask and what not, before anything is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from narrun_async.config import RunSection
from narrun_async.models import (
    Cohort,
    DataSource,
    Experiment,
    ExperimentId,
    ExperimentStatus,
    Selection,
    SourceNarrative,
    TextFlag,
    UncalledCounts,
)
from narrun_async.operations.ingesting import SourceFile
from narrun_async.operations.screening import refuse_other_rules
from narrun_async.ports import RemainingStore, ScreeningStore, SourceStore
from narrun_async.screening import ScreeningRules


class PreviewStore(SourceStore, ScreeningStore, RemainingStore, Protocol):
    """What previewing needs of a store; it only reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a new experiment would come to."""

    #: narratives of the file
    n_narratives: int
    #: of those, in the cohort
    n_cohort: int
    uncalled: UncalledCounts
    #: by which placeholders are known, where they would be skipped
    placeholder_rules: str | None
    #: nobody has looked at its texts, so that what takes no call is not known
    is_unscreened: bool = False
    #: what would be asked of a file that the database does not hold, as positions among its narratives
    asked: Sequence[int] = field(repr=False, default=())

    @property
    def n_to_ask(self) -> int:
        return self.n_cohort - self.uncalled.n_rows


async def preview_source(store: PreviewStore, file: SourceFile, source: DataSource, run: RunSection) -> Preview:
    """From what the database holds of a file.

    :raises ConfigurationError: as creating the experiment would
    """
    cohort = await store.load_cohort(source.checksum, max_narratives=run.max_narratives)
    screening = await store.load_screening(source.checksum)
    if run.skip_placeholders:
        refuse_other_rules(file, source, screening)
    return Preview(
        n_narratives=source.n_narratives,
        n_cohort=cohort.n_narratives,
        uncalled=await store.count_uncalled(unborn_experiment(cohort, run), Selection.MISSING),
        placeholder_rules=screening.rules if screening and run.skip_placeholders else None,
        is_unscreened=screening is None and (run.skip_placeholders or run.ask_identical_once),
    )


def distinct(narratives: Iterable[SourceNarrative]) -> Iterator[SourceNarrative]:
    """The first of each key, as loading keeps it."""
    seen: set[tuple[str, str]] = set()
    for one in narratives:
        key = (one.incident_id, one.narrative_type.value)
        if key not in seen:
            seen.add(key)
            yield one


def preview_file(narratives: Iterable[SourceNarrative], run: RunSection, rules: ScreeningRules) -> Preview:
    """Look through narratives in file order; holds their keys and hashes in memory."""
    position, n_to_skip, n_to_copy = -1, 0, 0
    asked: list[int] = []
    asked_texts: set[str] = set()
    for position, one in enumerate(distinct(narratives)):
        if run.max_narratives is not None and position >= run.max_narratives:
            continue
        if run.skip_placeholders and TextFlag.PLACEHOLDER in rules.flags_of(one.narrative_text):
            n_to_skip += 1
        elif run.ask_identical_once and one.text_sha256 in asked_texts:
            n_to_copy += 1
        else:
            asked.append(position)
            if run.ask_identical_once:
                asked_texts.add(one.text_sha256)
    uncalled = UncalledCounts(n_to_skip=n_to_skip, n_to_copy=n_to_copy)
    return Preview(
        n_narratives=position + 1,
        n_cohort=len(asked) + uncalled.n_rows,
        uncalled=uncalled,
        placeholder_rules=str(rules) if run.skip_placeholders else None,
        asked=asked,
    )


def unborn_experiment(cohort: Cohort, run: RunSection) -> Experiment:
    """An experiment that has no rows, because it does not exist; its remaining set is the whole cohort."""
    return Experiment(
        experiment_id=ExperimentId(""),
        name="",
        status=ExperimentStatus.RUNNING,
        cohort=cohort,
        config_json=None,
        config_sha256=None,
        log_dir=None,
        created_at="",
        skips_placeholders=run.skip_placeholders,
        asks_identical_once=run.ask_identical_once,
        columns={},
    )
