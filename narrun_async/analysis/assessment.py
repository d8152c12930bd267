"""Owns what two judgements of the same units say about each other: performance and agreement, with intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa

from narrun_async.analysis import tables
from narrun_async.analysis.by_answer import sensitivity_by_answer, share_by_answer
from narrun_async.analysis.proportions import proportion
from narrun_async.analysis.resampling import Resamples, bootstrap_interval
from narrun_async.analysis.samples import Bools, Floats, Pairs
from narrun_async.analysis.tables import Statistic
from narrun_async.analysis.values import Agreement, Confusion, Interval, Measure, Method, Performance, Z

_EMPTY_CELL = "a cell of the table is empty, which no resample can fill: the interval is too narrow"
_FEW_BEAR_MUCH = "few labels bear most of the weight: the interval is somewhat too narrow"


def assess_performance(pairs: Pairs, resamples: Resamples) -> Performance:
    """Answers (first) as a test for labels (second).

    :param resamples: of the four cells
    """
    table, of_yes, of_no = as_array(pairs.confusion), pairs[pairs.first], pairs[~pairs.first]
    return Performance(
        sensitivity=sensitivity(pairs, empty="undefined: none with an answer is labelled positive"),
        specificity=sensitivity(pairs.opposite, empty="undefined: none with an answer is labelled negative"),
        ppv=proportion(of_yes.sample(of_yes.second), empty="undefined: none that has a label is detected"),
        npv=proportion(of_no.sample(~of_no.second), empty="undefined: none that has a label was left undetected"),
        balanced_accuracy=_warned(
            pairs,
            resampled_measure(table, resamples, tables.balanced_accuracy, "undefined: it takes labels of both kinds"),
        ),
        f1=_f1(pairs.confusion, resamples),
        mcc=_warned(
            pairs,
            resampled_measure(
                table, resamples, tables.mcc, "undefined: it takes answers of both kinds and labels of both kinds"
            ),
        ),
    )


def _warned(pairs: Pairs, measure: Measure) -> Measure:
    """A missed one of a review stands for many, and resamples of one or two of them differ too little."""
    if not pairs.is_drawn_by_first or measure.interval is None or measure.remark:
        return measure
    return replace(measure, remark=_FEW_BEAR_MUCH)


def sensitivity(pairs: Pairs, *, empty: str) -> Measure:
    """Of those labelled yes (second), the share that is detected (first); specificity is that of `pairs.opposite`.

    :param empty: what to say where none is labelled yes
    """
    if pairs.is_drawn_by_first:
        return sensitivity_by_answer(pairs, empty=empty)
    positives = pairs[pairs.second]
    return proportion(positives.sample(positives.first), empty=empty)


def share_of(pairs: Pairs, hits: Bools, *, empty: str) -> Measure:
    """The share of all units that have a property."""
    if pairs.is_drawn_by_first:
        return share_by_answer(pairs, hits, empty=empty)
    return proportion(pairs.sample(hits), empty=empty)


def assess_agreement(pairs: Pairs, resamples: Resamples) -> Agreement:
    """How far two judgements of the same units agree, raw and beyond chance."""
    table, everyone = as_array(pairs.confusion), pairs.sample(pairs.first == pairs.second)
    observed = share_of(pairs, everyone.hits, empty="undefined: no unit has both judgements")
    kappa_interval, ac1_interval = None, None
    if not everyone.is_weighted:
        kappa_interval, ac1_interval = _kappa_interval(table), _ac1_interval(table)
    one_sided = "undefined: both say the same one thing of every unit"
    return Agreement(
        table=pairs.confusion,
        observed=observed,
        kappa=_chance_corrected(table, resamples, tables.cohens_kappa, kappa_interval, everyone.has_repeats, one_sided),
        pabak=_pabak(observed),
        ac1=_chance_corrected(
            table, resamples, tables.gwets_ac1, ac1_interval, everyone.has_repeats, observed.remark or one_sided
        ),
        positive=resampled_measure(table, resamples, tables.positive_agreement, "undefined: neither ever says yes"),
        negative=resampled_measure(table, resamples, tables.negative_agreement, "undefined: neither ever says no"),
        p_mcnemar=None if everyone.is_weighted or not everyone.n_units else exact_mcnemar(table),
    )


def as_array(confusion: Confusion) -> Floats:
    """The cells in the order in which `tables` takes them."""
    return np.array([confusion.tp, confusion.fp, confusion.fn, confusion.tn])


def exact_mcnemar(table: Floats) -> float:
    """Two-sided p that both say yes equally often; of counts."""
    return float(mcnemar(table.reshape(2, 2), exact=True).pvalue)


def resampled_measure(table: Floats, resamples: Resamples, statistic: Statistic, undefined: str) -> Measure:
    """A measure whose interval is that of the bootstrap."""
    value = float(statistic(table))
    if not np.isfinite(value):
        return Measure(value=None, remark=undefined)
    interval, remark = bootstrap_interval(resamples, statistic)
    if interval is not None and not table.all():
        remark = _EMPTY_CELL
    return Measure(value=value, interval=interval, remark=remark)


def _f1(confusion: Confusion, resamples: Resamples) -> Measure:
    measure = resampled_measure(as_array(confusion), resamples, tables.f1, "undefined: nothing is detected or positive")
    hits = 2 * confusion.tp
    return Measure(
        value=measure.value,
        numerator=hits,
        denominator=hits + confusion.fp + confusion.fn,
        interval=measure.interval,
        remark=measure.remark,
    )


def _chance_corrected(
    table: Floats,
    resamples: Resamples,
    statistic: Statistic,
    formula: Interval | None,
    has_repeats: bool,
    undefined: str,
) -> Measure:
    """A measure that has a formula for its interval, which takes units for independent and equal in weight."""
    by_resampling = resampled_measure(table, resamples, statistic, undefined)
    if formula is None or by_resampling.value is None:
        return by_resampling
    return Measure(
        value=by_resampling.value, interval=formula, clustered=by_resampling.interval if has_repeats else None
    )


def _pabak(observed: Measure) -> Measure:
    """A straight line of the observed agreement, and so are the ends of its intervals."""

    def stretched(interval: Interval | None) -> Interval | None:
        if interval is None:
            return None
        return Interval(low=2 * interval.low - 1, high=2 * interval.high - 1, method=interval.method)

    return Measure(
        value=None if observed.value is None else 2 * observed.value - 1,
        interval=stretched(observed.interval),
        clustered=stretched(observed.clustered),
        remark=observed.remark,
    )


def _kappa_interval(table: Floats) -> Interval | None:
    """J. L. Fleiss, J. Cohen, B. S. Everitt, Psychol. Bull. 72 (1969) 323-327; None where it has no width."""
    if not np.isfinite(tables.cohens_kappa(table)):
        return None
    with np.errstate(all="ignore"):  # it also tests kappa against 0, which may divide by nothing
        found = cohens_kappa(table.reshape(2, 2))
    return _around(float(found.kappa), math.sqrt(max(float(found.var_kappa), 0.0)))


def _ac1_interval(table: Floats) -> Interval | None:
    if not table.sum():
        return None
    return _around(float(tables.gwets_ac1(table)), tables.ac1_standard_error(table))


def _around(value: float, standard_error: float) -> Interval | None:
    if standard_error < 1e-9:
        return None
    reach = Z * standard_error
    return Interval(low=max(-1.0, value - reach), high=min(1.0, value + reach), method=Method.NORMAL)
