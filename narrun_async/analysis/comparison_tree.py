"""The tree of values that comparing experiments gives: for lines, for `--json`, for a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from narrun_async.analysis.evaluation_tree import Level, Subject
from narrun_async.analysis.values import Agreement, Confusion, Measure, Performance


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One of the experiments that are compared."""

    subject: Subject
    #: that can make a difference to an answer, by dotted key, as short texts
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FallOut:
    """Why narratives that some experiment has are not compared, one experiment's share of it."""

    experiment_id: str
    not_in_cohort: int
    no_row_yet: int
    skipped: int
    errors: int
    answered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One experiment against the labels, on the cases that all have answered."""

    experiment_id: str
    confusion: Confusion
    performance: Performance
    kappa: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Cases on which only one of two is right: exact McNemar."""

    only_first: int
    only_second: int
    #: two-sided; None where the cases have weights, or there is none
    p: float | None
    #: after Holm, over all pairs of the same level and the same question
    p_holm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairComparison:
    """Two experiments on the cases that all have answered."""

    #: numbers of the contenders, from 0
    first: int
    second: int
    #: same settings but for seeds and names: their differences are what repeating the question does
    is_repetition: bool
    #: of their answers, whatever the labels
    agreement: Agreement
    #: first minus second, with a paired interval
    f1: Measure
    sensitivity: Measure
    specificity: Measure
    #: right answers to all labelled cases, to those labelled yes, to those labelled no
    right: PairedTest
    found: PairedTest
    spared: PairedTest


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelComparison:
    """Narratives, or incidents as their common narratives tell."""

    level: Level
    #: answered by all
    n_common: int
    #: and labelled
    n_compared: int
    #: in the order of the contenders
    standings: tuple[Standing, ...]
    #: all pairs; of many contenders each against the first
    pairs: tuple[PairComparison, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordantCase:
    """A narrative on which the experiments do not all say the same."""

    incident_id: str
    narrative_type: str
    #: None where unlabelled
    label: bool | None
    #: in the order of the contenders
    answers: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Luck:
    """What choosing the best of many does by itself."""

    #: experiments of the database that were judged on labels of the same file
    n_configurations: int
    #: standard deviation of one configuration's F1 about the mean of all, from resampling the same cases
    spread: float
    #: how far above their mean the best of so many equally good ones would lie
    expected_lead: float
    #: how far above the mean of those compared the best of them does lie
    observed_lead: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """All that a comparison says."""

    contenders: tuple[Contender, ...]
    #: where the labels come from, in words
    labels: str
    #: narratives that at least one cohort has
    n_narratives: int
    fall_outs: tuple[FallOut, ...]
    #: narratives and incidents
    levels: tuple[LevelComparison, ...]
    #: settings that are not the same in all contenders
    varying: tuple[str, ...]
    n_discordant: int
    #: the first of them, labelled ones before the others
    discordant: tuple[DiscordantCase, ...]
    #: None where nothing is labelled, or without resamples
    luck: Luck | None
    n_resamples: int
    seed: int
    remarks: tuple[str, ...]
