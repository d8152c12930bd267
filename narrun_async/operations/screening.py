"""Looks at texts that are in the database already: for the first time, or again by other rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from narrun_async.errors import ConfigurationError, UsageError
from narrun_async.models import DataSource, Experiment, IngestReport, Screening
from narrun_async.operations.experiments import is_incomplete
from narrun_async.operations.ingesting import SourceFile
from narrun_async.ports import ExperimentStore, ScreeningStore, SourceStore
from narrun_async.screening import ScreeningRules


class ScreenedStore(SourceStore, ScreeningStore, ExperimentStore, Protocol):
    """What screening needs of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenedSource:
    """One data source, and what a look at its texts has shown."""

    source: DataSource
    screening: Screening


async def ensure_screened(store: ScreeningStore, file: SourceFile, report: IngestReport) -> IngestReport:
    """The same report, with a screening of its source: that which there was, or one that is made here.

    :raises ConfigurationError: the rule file is wrong
    """
    if report.screening is not None:
        return report
    return replace(report, screening=await store.screen_source(report.source.checksum, file.rules()))


def refuse_other_rules(file: SourceFile, source: DataSource, screening: Screening | None) -> None:
    """:raises ConfigurationError: placeholders would be told by other rules than those that a person named"""
    if differing := rules_differ(file, source, screening):
        raise ConfigurationError(
            differing, advice=f"`narrun screen --placeholder-rules {file.rules_file}` looks at them again"
        )


def rules_differ(file: SourceFile, source: DataSource, screening: Screening | None) -> str | None:
    """A sentence where the rules that a person named are not those by which the source was screened.

    :raises ConfigurationError: the rule file is wrong
    """
    if file.rules_file is None or screening is None:
        return None
    rules = file.rules()
    if rules.sha256 == screening.rules_sha256:
        return None
    return f"the texts of {source.path} were screened by the rules {screening.rules}, not by {rules}"


async def screen(store: ScreenedStore, rules: ScreeningRules) -> Sequence[ScreenedSource]:
    """Look at the texts of every data source. Safe to repeat; with the rules of before nothing changes.

    :raises UsageError: an experiment that is not complete skips what other rules take for placeholders
    """
    sources = await store.list_sources()
    experiments = [one for one in await store.list_experiments() if one.skips_placeholders and is_incomplete(one)]
    for source in sources:
        await _refuse_to_change(store, source, rules, experiments)
    return [
        ScreenedSource(source=source, screening=await store.screen_source(source.checksum, rules)) for source in sources
    ]


async def _refuse_to_change(
    store: ScreeningStore, source: DataSource, rules: ScreeningRules, experiments: Sequence[Experiment]
) -> None:
    """What an experiment skips was frozen with it."""
    before = await store.load_screening(source.checksum)
    depending = [one for one in experiments if one.cohort.data_checksum == source.checksum]
    if depending and before is not None and before.rules_sha256 != rules.sha256:
        raise UsageError(
            f"experiment {depending[0].experiment_id} is not complete, and skips what the rules {before.rules} take"
            f" for placeholders, so the texts of {source.path} cannot be screened by {rules}",
            advice="resume it to its end first, or load the file into another --db",
        )
