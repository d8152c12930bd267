"""Owns one level of an evaluation: its table and measures, its errors at worst and at best, and its prevalence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from narrun_async.analysis import tables
from narrun_async.analysis.assessment import assess_agreement, assess_performance, share_of
from narrun_async.analysis.by_answer import as_share, sensitivity_by_answer, share_by_answer
from narrun_async.analysis.cohort import UNLABELLED, CohortTable, Units
from narrun_async.analysis.correction import corrected_beside_labels, corrected_prevalence, predictive_values
from narrun_async.analysis.evaluation_tree import ErrorBounds, LevelReport, Prevalence, Validity
from narrun_async.analysis.mover import as_estimate, difference
from narrun_async.analysis.proportions import proportion, share
from narrun_async.analysis.resampling import Bootstrap, resample
from narrun_async.analysis.samples import Floats, Pairs, sum_by_cluster
from narrun_async.analysis.tables import Statistic
from narrun_async.analysis.values import Bounds, Measure, Share
from narrun_async.models import NarrativeType

#: where predictive values are told, besides the corrected prevalence itself
PREVALENCES = (0.01, 0.02, 0.05, 0.1, 0.2)
#: a corrected prevalence nearer to 0 or 1 than this is one of them: parts that cancel out leave 1e-17
_ROUNDING = 1e-9

#: sensitivity and specificity of a level; None where nobody knows them
FindValidity = Callable[[Units], Validity | None]


def levels_of(table: CohortTable) -> Sequence[Units]:
    """In the order of `Level`; types that the cohort does not have are left out."""
    kinds = [kind for kind in NarrativeType if kind.value in table.kinds]
    by_kind = [table.of_kind(kind) for kind in kinds]
    return [table.narratives(), *by_kind, table.incidents(), table.incidents_with_both()]


def assess_level(units: Units, bootstrap: Bootstrap, find_validity: FindValidity) -> LevelReport:
    """One level: tables, measures, and what they say about the cohort."""
    pairs = units.pairs(units.is_evaluated)
    contributions = sum_by_cluster(pairs.cells, pairs.weights, pairs.clusters)
    resamples = resample(contributions, bootstrap, label=units.level)
    return LevelReport(
        level=units.level,
        counts=units.counts(),
        confusion=pairs.confusion,
        performance=assess_performance(pairs, resamples),
        agreement=assess_agreement(pairs, resamples),
        if_errors=bound_errors(units),
        prevalence=estimate_prevalence(units, find_validity(units)),
    )


def own_validity(units: Units) -> Validity | None:
    """From the labelled part of the units themselves; None where it has labels of one kind only."""
    return validity_of(units, source="the labelled part of this experiment", is_own=True)


def validity_of(units: Units, *, source: str, is_own: bool = False) -> Validity | None:
    """Sensitivity and specificity among the evaluated units; None where they have labels of one kind only."""
    pairs = units.pairs(units.is_evaluated)
    found, spared = _share_found(pairs), _share_found(pairs.opposite)
    if found is None or spared is None:
        return None
    return Validity(sensitivity=found, specificity=spared, source=source, is_own=is_own)


def _share_found(pairs: Pairs) -> Share | None:
    if pairs.is_drawn_by_first:
        return as_share(sensitivity_by_answer(pairs, empty=""))
    positives = pairs[pairs.second]
    return share(positives.sample(positives.first))


def estimate_prevalence(units: Units, validity: Validity | None) -> Prevalence:
    """How common the thing is among the answered units, as detected and corrected."""
    pairs, nobody = units.pairs(units.is_evaluated), "undefined: none with an answer has a label"
    apparent = proportion(units.answers(units.is_answered), empty="undefined: there is no answer yet")
    labelled = share_of(pairs, pairs.second, empty=nobody)
    apparent_of_labelled = proportion(pairs.sample(pairs.first), empty=nobody)
    corrected = _corrected(units, validity, labelled)
    known = [corrected.value] if corrected.value is not None and _ROUNDING < corrected.value < 1 - _ROUNDING else []
    return Prevalence(
        apparent=apparent,
        validity=validity,
        corrected=corrected,
        includes_zero=None if corrected.interval is None else corrected.interval.low <= 0,
        labelled=labelled,
        apparent_of_labelled=apparent_of_labelled,
        predictive_values=(
            () if validity is None else tuple(predictive_values(validity, one) for one in (*known, *PREVALENCES))
        ),
        remarks=tuple(_prevalence_remarks(units, apparent_of_labelled)),
    )


def _corrected(units: Units, validity: Validity | None, labelled: Measure) -> Measure:
    everyone, others = units.answers(units.is_answered), units.answers(units.is_answered & ~units.is_evaluated)
    apparent = share(everyone)
    if apparent is None:
        return Measure(value=None, remark="undefined: there is no answer yet")
    pairs = units.pairs(units.is_evaluated)
    if pairs.is_drawn_by_first and validity is not None and validity.is_own:
        # Rogan's and Gladen's number, for sensitivity and specificity come from what a yes and a no are worth.
        by_answer = share_by_answer(pairs, pairs.second, empty="", detected=apparent.value)
        return replace(by_answer, numerator=None, denominator=None)
    # With weights, the labelled part stands for the whole and is not a part of it.
    is_part = not pairs.is_weighted
    unlabelled = share(others)
    if unlabelled is None and is_part and (validity is None or validity.is_own):
        return replace(labelled, interval=labelled.best_interval, clustered=None)
    if validity is None:
        return Measure(value=None, remark="cannot be corrected: sensitivity or specificity is unknown")
    if unlabelled is None or not (is_part and validity.is_own):
        return corrected_prevalence(apparent, validity)
    return corrected_beside_labels(labelled, unlabelled, validity, fraction=1 - others.n_units / everyone.n_units)


def _prevalence_remarks(units: Units, of_labelled: Measure) -> Sequence[str]:
    n_answered, n_evaluated = int(units.is_answered.sum()), int(units.is_evaluated.sum())
    if n_evaluated == n_answered > 0:
        return ["every answer has a label, so the labels say the rate themselves; nothing needs to be corrected"]
    others = proportion(units.answers(units.is_answered & ~units.is_evaluated), empty="")
    if units.pairs(units.is_evaluated).is_weighted or not _differ(of_labelled, others):
        return []
    assert of_labelled.value is not None and others.value is not None
    return [
        f"the labelled ones are detected at another rate than the others ({100 * of_labelled.value:.1f} % and "
        f"{100 * others.value:.1f} %), so they are no random sample: the labelled rate, PPV and NPV hold for them "
        "alone, and the correction may be off by more than its interval"
    ]


def _differ(one: Measure, other: Measure) -> bool:
    """The 95 % interval of the difference of two independent shares leaves out zero."""
    of_one, of_other = as_estimate(one), as_estimate(other)
    if of_one is None or of_other is None:
        return False
    found = difference(of_one, of_other)
    return found.low > 0 or found.high < 0


def bound_errors(units: Units) -> ErrorBounds:
    """What the measures would be if every open unit had been answered wrongly, and if rightly."""
    decided = units.pairs(units.is_evaluated & ~units.is_open)
    is_open_labelled = units.is_open & (units.label != UNLABELLED)
    open_weights = units.weight[is_open_labelled]
    is_positive = units.label[is_open_labelled] == 1
    positive, negative = float(open_weights[is_positive].sum()), float(open_weights[~is_positive].sum())
    base = decided.confusion
    worst = np.array([base.tp, base.fp + negative, base.fn + positive, base.tn])
    best = np.array([base.tp + positive, base.fp, base.fn, base.tn + negative])

    def bounds(statistic: Statistic) -> Bounds:
        return Bounds(worst=_finite(statistic(worst)), best=_finite(statistic(best)))

    n_open = int(units.is_open.sum())
    n_detected = int((units.detected & units.is_answered).sum())
    n_all = int((units.is_answered | units.is_open).sum())
    return ErrorBounds(
        n_open=int(is_open_labelled.sum()),
        sensitivity=bounds(tables.sensitivity),
        specificity=bounds(tables.specificity),
        ppv=bounds(tables.ppv),
        npv=bounds(tables.npv),
        f1=bounds(tables.f1),
        apparent=Bounds(
            worst=n_detected / n_all if n_all else None, best=(n_detected + n_open) / n_all if n_all else None
        ),
        n_open_all=n_open,
        n_units=n_all,
    )


def _finite(value: Floats) -> float | None:
    return float(value) if np.isfinite(value) else None
