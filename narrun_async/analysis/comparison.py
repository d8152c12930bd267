"""Compares experiments on the cases that all of them have answered: against the labels, and against each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from statsmodels.stats.multitest import multipletests

from narrun_async.analysis import tables
from narrun_async.analysis.assessment import assess_agreement, assess_performance, exact_mcnemar
from narrun_async.analysis.cohort import CohortTable, LabelSet
from narrun_async.analysis.comparison_tree import (
    ComparisonReport,
    Contender,
    LevelComparison,
    PairComparison,
    PairedTest,
    Standing,
)
from narrun_async.analysis.luck import assess_luck
from narrun_async.analysis.panel import CommonCases, Panel, find_common_cases
from narrun_async.analysis.resampling import Bootstrap, Resamples, bootstrap_interval, resample
from narrun_async.analysis.samples import Bools, Floats, cells_of, cells_of_number, sum_by_cluster
from narrun_async.analysis.tables import Statistic
from narrun_async.analysis.values import CONFIDENCE, Measure

#: of more contenders than this not all pairs are compared but each with the first
MOST_FOR_ALL_PAIRS = 12

#: numbers of two contenders, the smaller first
PairOfNumbers = tuple[int, int]


def compare(
    contenders: Sequence[Contender],
    cohorts: Sequence[CohortTable],
    labels: LabelSet,
    bootstrap: Bootstrap,
    *,
    repetitions: Collection[PairOfNumbers],
    varying: Sequence[str],
    n_configurations: int,
    limit: int,
) -> ComparisonReport:
    """Experiments side by side.

    :param cohorts: one for each contender
    :param labels: of all of them
    :param repetitions: pairs that ask the same question in the same way
    :param varying: settings that differ between contenders
    :param n_configurations: experiments that were judged on labels of the same file, these included
    :param limit: how many discordant cases to list
    """
    ids = [one.subject.experiment_id for one in contenders]
    common = find_common_cases(cohorts, labels, ids)
    panels = [common.narratives, common.incidents()]
    drawn = [_resample_all(panel, bootstrap) for panel in panels]
    levels = [
        _compare_level(panel, resamples, bootstrap, ids, repetitions)
        for panel, resamples in zip(panels, drawn, strict=True)
    ]
    discordant = common.discordant()
    return ComparisonReport(
        contenders=tuple(contenders),
        labels=labels.name,
        n_narratives=common.n_narratives,
        fall_outs=common.fall_outs,
        levels=tuple(levels),
        varying=tuple(varying),
        n_discordant=len(discordant),
        discordant=tuple(discordant[:limit]),
        luck=assess_luck(drawn[0], len(contenders), n_configurations),
        n_resamples=bootstrap.n_resamples,
        seed=bootstrap.seed,
        remarks=tuple(_remarks(common)),
    )


def pairs_of(n_contenders: int) -> Sequence[PairOfNumbers]:
    """All of them, or of many contenders the first with each other."""
    if n_contenders <= MOST_FOR_ALL_PAIRS:
        return list(combinations(range(n_contenders), 2))
    return [(0, other) for other in range(1, n_contenders)]


def _resample_all(panel: Panel, bootstrap: Bootstrap) -> Resamples:
    """The tables of all experiments at once, four cells each, so that every difference is paired."""
    labelled = panel.is_labelled
    label, weight, incident = panel.label[labelled] == 1, panel.weight[labelled], panel.incident[labelled]
    contributions = [sum_by_cluster(cells_of(one[labelled], label), weight, incident) for one in panel.answers]
    return resample(np.hstack(contributions), bootstrap, label=f"compare {panel.level}")


def _compare_level(
    panel: Panel,
    resamples: Resamples,
    bootstrap: Bootstrap,
    experiment_ids: Sequence[str],
    repetitions: Collection[PairOfNumbers],
) -> LevelComparison:
    standings = [
        _standing(panel, resamples, number, experiment_id) for number, experiment_id in enumerate(experiment_ids)
    ]
    pairs = [
        _compare_pair(panel, resamples, bootstrap, pair, is_repetition=pair in repetitions)
        for pair in pairs_of(len(experiment_ids))
    ]
    return LevelComparison(
        level=panel.level,
        n_common=int(panel.label.size),
        n_compared=int(panel.is_labelled.sum()),
        standings=tuple(standings),
        pairs=tuple(_adjust_by_holm(pairs)),
    )


def _standing(panel: Panel, resamples: Resamples, number: int, experiment_id: str) -> Standing:
    pairs, own = panel.against_labels(number), resamples.part(cells_of_number(number))
    return Standing(
        experiment_id=experiment_id,
        confusion=pairs.confusion,
        performance=assess_performance(pairs, own),
        kappa=assess_agreement(pairs, own).kappa,
    )


def _compare_pair(
    panel: Panel, resamples: Resamples, bootstrap: Bootstrap, pair: PairOfNumbers, *, is_repetition: bool
) -> PairComparison:
    first, second = pair
    answers = panel.against_each_other(first, second)
    agreement = resample(
        sum_by_cluster(answers.cells, answers.weights, answers.clusters), bootstrap, label=f"{panel.level} {pair}"
    )
    one, other = panel.against_labels(first), panel.against_labels(second)
    one_is_right, other_is_right = one.first == one.second, other.first == other.second
    is_weighted = one.is_weighted

    def test(chosen: Bools) -> PairedTest:
        return _paired_test(one_is_right[chosen], other_is_right[chosen], is_weighted=is_weighted)

    return PairComparison(
        first=first,
        second=second,
        is_repetition=is_repetition,
        agreement=assess_agreement(answers, agreement),
        f1=_difference(resamples, pair, tables.f1),
        sensitivity=_difference(resamples, pair, tables.sensitivity),
        specificity=_difference(resamples, pair, tables.specificity),
        right=test(np.ones_like(one.second)),
        found=test(one.second),
        spared=test(~one.second),
    )


def _difference(resamples: Resamples, pair: PairOfNumbers, measure: Statistic) -> Measure:
    """First minus second. The interval is paired: both are judged on the same drawn incidents."""
    first, second = map(cells_of_number, pair)

    def difference(sums: Floats) -> Floats:
        return measure(sums[..., first]) - measure(sums[..., second])

    value = float(difference(resamples.observed))
    if not np.isfinite(value):
        return Measure(value=None, remark="undefined, because it is for one of the two")
    interval, remark = bootstrap_interval(resamples, difference, is_difference=True)
    return Measure(value=value, interval=interval, remark=remark)


def _paired_test(one_is_right: Bools, other_is_right: Bools, *, is_weighted: bool) -> PairedTest:
    """Q. McNemar, Psychometrika 12 (1947) 153-157, exact; of narratives, it takes them for independent."""
    only_first, only_second = int((one_is_right & ~other_is_right).sum()), int((other_is_right & ~one_is_right).sum())
    p = None
    if one_is_right.size and not is_weighted:
        p = exact_mcnemar(np.array([0.0, only_first, only_second, 0.0]))
    return PairedTest(only_first=only_first, only_second=only_second, p=p, p_holm=p)


def _adjust_by_holm(pairs: Sequence[PairComparison]) -> Sequence[PairComparison]:
    """S. Holm, Scand. J. Stat. 6 (1979) 65-70, over the pairs, for each of the three questions by itself."""
    adjusted = list(pairs)
    questions: Sequence[tuple[str, Callable[[PairComparison], PairedTest]]] = (
        ("right", lambda pair: pair.right),
        ("found", lambda pair: pair.found),
        ("spared", lambda pair: pair.spared),
    )
    for name, test_of in questions:
        tested = [number for number, pair in enumerate(adjusted) if test_of(pair).p is not None]
        if len(tested) < 2:
            continue  # nothing to allow for; and each call of multipletests collects garbage, a tenth of a second
        p_values = [test_of(adjusted[number]).p for number in tested]
        _, corrected, _, _ = multipletests(p_values, alpha=1 - CONFIDENCE, method="holm")
        for number, p in zip(tested, corrected, strict=True):
            changed = replace(test_of(adjusted[number]), p_holm=float(p))
            adjusted[number] = replace(adjusted[number], **{name: changed})  # type: ignore[arg-type]  # a PairedTest
    return adjusted


def _remarks(common: CommonCases) -> Sequence[str]:
    if not common.keys:
        return ["no narrative has an answer in all of them, so there is nothing to compare"]
    if not common.narratives.is_labelled.any():
        return ["none of the narratives that all have answered has a label: only their agreement can be told"]
    return []
