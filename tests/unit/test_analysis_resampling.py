"""Promises of `analysis.resampling`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from narrun_async.analysis import tables
from narrun_async.analysis.resampling import Bootstrap, bootstrap_interval, resample
from narrun_async.analysis.samples import Floats
from narrun_async.analysis.values import Method

MANY = Bootstrap(n_resamples=20_000, seed=11)


def one_unit_each(tp: int, fp: int, fn: int, tn: int) -> Floats:
    return np.repeat(np.eye(4), [tp, fp, fn, tn], axis=0)


def ends(contributions: Floats, statistic: tables.Statistic, bootstrap: Bootstrap = MANY) -> tuple[float, float]:
    interval, remark = bootstrap_interval(resample(contributions, bootstrap, label="x"), statistic)
    assert interval is not None, remark
    assert interval.method is Method.BCA
    return interval.low, interval.high


@pytest.mark.parametrize("statistic", [tables.f1, tables.mcc, tables.balanced_accuracy])
def test_it_is_the_bca_interval_of_scipy(statistic: tables.Statistic) -> None:
    """Up to the noise of 20,000 draws; the predecessor's table, each narrative an incident of its own."""
    contributions = one_unit_each(42, 14, 6, 342)
    reference = stats.bootstrap(
        (np.arange(len(contributions)),),
        lambda chosen, axis: statistic(contributions[chosen].sum(axis=axis - 1 if axis < 0 else axis)),
        n_resamples=20_000,
        batch=1000,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ends(contributions, statistic) == pytest.approx((reference.low, reference.high), abs=0.006)


def test_clusters_are_drawn_whole_as_scipy_would_draw_them() -> None:
    rng = np.random.default_rng(3)
    contributions = rng.multinomial(2, [0.1, 0.04, 0.03, 0.83], size=200).astype(float)
    reference = stats.bootstrap(
        (np.arange(200),),
        lambda chosen, axis: tables.f1(contributions[chosen].sum(axis=axis - 1 if axis < 0 else axis)),
        n_resamples=20_000,
        batch=1000,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ends(contributions, tables.f1) == pytest.approx((reference.low, reference.high), abs=0.01)


@pytest.mark.parametrize("statistic", [tables.f1, tables.ppv])
def test_bias_and_skewness_are_corrected_as_scipy_corrects_them(statistic: tables.Statistic) -> None:
    """Few incidents of very unequal weight: the plain percentiles end 0.02 to 0.05 elsewhere."""
    contributions = np.random.default_rng(3).exponential(size=(25, 4)) ** 3 * [3, 0.3, 0.3, 0.1]
    reference = stats.bootstrap(
        (np.arange(25),),
        lambda chosen, axis: statistic(contributions[chosen].sum(axis=axis - 1 if axis < 0 else axis)),
        n_resamples=20_000,
        batch=2000,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ends(contributions, statistic) == pytest.approx((reference.low, reference.high), abs=0.005)


def test_resamples_that_equal_the_estimate_count_half_so_that_what_is_symmetric_stays_so() -> None:
    low, high = ends(one_unit_each(4, 3, 4, 3), tables.observed_agreement)
    assert low < 0.5 < high
    assert low + high == pytest.approx(1)


def test_a_difference_has_the_plain_percentiles() -> None:
    resamples = resample(one_unit_each(42, 14, 6, 342), MANY, label="x")
    interval, _ = bootstrap_interval(resamples, tables.f1, is_difference=True)
    assert interval is not None and interval.method is Method.PERCENTILES
    expected = np.quantile(tables.f1(resamples.drawn), [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=1e-12)


def test_incidents_whose_narratives_repeat_each_other_give_the_interval_of_one_narrative_each() -> None:
    once = one_unit_each(20, 8, 5, 90)
    assert ends(2 * once, tables.f1) == ends(once, tables.f1)


def test_narratives_taken_for_independent_would_give_a_narrower_one() -> None:
    once = one_unit_each(20, 8, 5, 90)
    low, high = ends(2 * once, tables.f1)
    falsely_low, falsely_high = ends(np.repeat(once, 2, axis=0), tables.f1)
    assert high - low > 1.2 * (falsely_high - falsely_low)


def test_the_same_seed_and_label_draw_the_same_whatever_else_is_drawn() -> None:
    contributions = one_unit_each(20, 8, 5, 90)
    first = resample(contributions, MANY, label="a").drawn
    resample(contributions, MANY, label="b")
    assert np.array_equal(first, resample(contributions, MANY, label="a").drawn)
    assert not np.array_equal(first, resample(contributions, MANY, label="b").drawn)
    other_seed = Bootstrap(n_resamples=20_000, seed=12)
    assert not np.array_equal(first, resample(contributions, other_seed, label="a").drawn)


def test_many_kinds_of_incidents_are_drawn_in_parts_without_changing_what_a_resample_is() -> None:
    contributions = np.random.default_rng(1).uniform(0, 3, size=(1500, 4))
    drawn = resample(contributions, Bootstrap(n_resamples=6000, seed=1), label="x").drawn
    assert drawn.mean(axis=0) == pytest.approx(contributions.sum(axis=0), rel=0.01)
    assert drawn.std(axis=0) == pytest.approx(contributions.std(axis=0) * np.sqrt(1500), rel=0.05)


@given(st.tuples(*[st.integers(0, 15)] * 4))
def test_every_resample_holds_as_many_incidents_as_there_are(cells: tuple[int, int, int, int]) -> None:
    found = resample(one_unit_each(*cells), Bootstrap(n_resamples=50, seed=1), label="x")
    assert np.all(found.drawn.sum(axis=1) == sum(cells))
    assert found.n_of_kind.sum() == sum(cells)


@pytest.mark.parametrize(
    ("contributions", "bootstrap", "why"),
    [
        (one_unit_each(5, 1, 1, 5), Bootstrap(n_resamples=0, seed=1), "no resamples were asked for"),
        (one_unit_each(9, 0, 0, 9), MANY, "no resample differs"),
        (one_unit_each(1, 0, 0, 9), MANY, "leave it undefined"),
        (np.empty((0, 4)), MANY, "no resamples"),
    ],
)
def test_where_resamples_cannot_tell_there_is_no_interval_and_the_reason_is_told(
    contributions: Floats, bootstrap: Bootstrap, why: str
) -> None:
    interval, remark = bootstrap_interval(resample(contributions, bootstrap, label="x"), tables.f1)
    assert interval is None
    assert why in remark
