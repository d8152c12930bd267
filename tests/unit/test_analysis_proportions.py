"""Promises of `analysis.proportions`."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from narrun_async.analysis.proportions import effective_size, kish_size, proportion, share
from narrun_async.analysis.samples import Sample
from narrun_async.analysis.values import Method


def sample(hits: list[int], *, clusters: list[int] | None = None, weights: list[float] | None = None) -> Sample:
    return Sample(
        hits=np.array(hits, dtype=bool),
        weights=np.ones(len(hits)) if weights is None else np.array(weights, dtype=float),
        clusters=np.arange(len(hits)) if clusters is None else np.array(clusters, dtype=np.int64),
    )


HITS = st.lists(st.integers(0, 1), min_size=1, max_size=60)


@given(HITS)
def test_of_independent_units_it_is_wilsons_interval_as_statsmodels_has_it(hits: list[int]) -> None:
    measure = proportion(sample(hits), empty="")
    low, high = proportion_confint(sum(hits), len(hits), method="wilson")
    assert measure.interval is not None
    assert (measure.interval.low, measure.interval.high) == pytest.approx((low, high), abs=1e-9)
    assert measure.interval.method is Method.WILSON
    assert measure.clustered is None
    assert (measure.numerator, measure.denominator) == (sum(hits), len(hits))


def test_it_is_newcombes_worked_example() -> None:
    """R. G. Newcombe, Stat. Med. 17 (1998) 857-872, table I: 81 of 263 and 15 of 148, score method."""
    for hits, n, expected in ((81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605))):
        found = proportion(sample([1] * hits + [0] * (n - hits)), empty="").interval
        assert found is not None
        assert (round(found.low, 4), round(found.high, 4)) == expected


def test_of_nothing_there_is_no_proportion_and_the_reason_is_told() -> None:
    measure = proportion(sample([]), empty="undefined: nobody")
    assert (measure.value, measure.interval, measure.remark) == (None, None, "undefined: nobody")
    assert share(sample([])) is None


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), st.floats(0.1, 9)), min_size=2, max_size=40))
def test_effective_size_is_that_of_the_cluster_robust_variance_of_statsmodels(
    units: list[tuple[int, int, float]],
) -> None:
    """An intercept alone, weighted, clustered, without small-sample correction."""
    hits, clusters, weights = map(list, zip(*units, strict=True))
    assume(0 < sum(hits) < len(hits) and len(set(clusters)) > 1)
    fitted = sm.WLS(np.array(hits, dtype=float), np.ones(len(hits)), weights=weights).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(clusters), "use_correction": False}
    )
    value, variance = float(fitted.params[0]), float(fitted.cov_params()[0, 0])
    assume(variance > 1e-12)
    expected = min(value * (1 - value) / variance, kish_size(np.array(weights)))
    found = effective_size(sample(hits, clusters=clusters, weights=weights))
    assert found == pytest.approx(expected, rel=1e-9)


@given(HITS)
def test_independent_units_of_equal_weight_count_fully(hits: list[int]) -> None:
    assert effective_size(sample(hits)) == pytest.approx(len(hits), rel=1e-12)


@given(HITS, st.integers(2, 4))
def test_units_that_only_repeat_each_other_count_once(hits: list[int], times: int) -> None:
    clusters = [number for number in range(len(hits)) for _ in range(times)]
    repeated = sample([hit for hit in hits for _ in range(times)], clusters=clusters)
    assert effective_size(repeated) == pytest.approx(len(hits), rel=1e-9)
    once, again = proportion(sample(hits), empty=""), proportion(repeated, empty="")
    assert again.clustered is not None and once.interval is not None
    assert (again.clustered.low, again.clustered.high) == pytest.approx((once.interval.low, once.interval.high), 1e-9)


@given(HITS, st.floats(0.01, 100))
def test_only_the_ratios_of_weights_matter(hits: list[int], factor: float) -> None:
    weights = [1.0 + number % 3 for number in range(len(hits))]
    one = proportion(sample(hits, weights=weights), empty="")
    other = proportion(sample(hits, weights=[factor * weight for weight in weights]), empty="")
    assert one.interval is not None and other.interval is not None
    assert (one.value, one.interval.low, one.interval.high) == pytest.approx(
        (other.value, other.interval.low, other.interval.high), rel=1e-6, abs=1e-9
    )


def test_unequal_weights_widen_the_interval() -> None:
    equal = proportion(sample([1, 1, 0, 0, 1, 0, 0, 0]), empty="").interval
    unequal = proportion(sample([1, 1, 0, 0, 1, 0, 0, 0], weights=[1, 9, 1, 9, 1, 9, 1, 9]), empty="").interval
    assert equal is not None and unequal is not None
    assert unequal.high - unequal.low > equal.high - equal.low
    assert kish_size(np.array([1.0, 9.0] * 4)) == pytest.approx(40**2 / (4 * (1 + 81)))
