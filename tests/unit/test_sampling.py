"""Promises of drawing samples: every stratum is seen, weights follow from the draw, a seed means one sample."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.metrics.sampling import (
    DEFAULT_BANDS,
    Allocation,
    ReviewUnit,
    Stratifier,
    allocate,
    draw,
    stratum_of,
)
from narrun_async.models import NarrativeId

sizes = st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(1, 400), min_size=1, max_size=12)
rules = st.sampled_from(Allocation)


def unit(
    number: int, *, detected: bool = False, confidence: float | None = 0.7, both: bool = True, differ: bool = False
) -> ReviewUnit:
    return ReviewUnit(
        has_text=True,
        narrative_id=NarrativeId(number),
        detected=detected,
        confidence=confidence,
        has_both=both,
        disagrees=differ,
    )


@given(sizes, st.integers(1, 3000), rules)
def test_an_allocation_gives_out_all_and_no_stratum_more_than_it_has(
    sizes: dict[str, int], n: int, rule: Allocation
) -> None:
    given_out = allocate(sizes, n, rule)
    assert given_out.keys() == sizes.keys()
    assert sum(given_out.values()) == min(n, sum(sizes.values()))
    assert all(0 <= given_out[one] <= sizes[one] for one in sizes)
    if n >= len(sizes):
        assert min(given_out.values()) >= 1


@given(sizes, st.integers(1, 3000))
def test_an_equal_allocation_is_even_but_for_strata_that_are_used_up(sizes: dict[str, int], n: int) -> None:
    given_out = allocate(sizes, n, Allocation.EQUAL)
    open_ones = [given_out[one] for one in sizes if given_out[one] < sizes[one]]
    if len(sizes) <= n and open_ones:
        assert max(open_ones) - min(open_ones) <= 1
        assert all(given_out[one] <= max(open_ones) for one in sizes)


@given(sizes, st.integers(1, 3000))
def test_a_proportional_allocation_is_within_one_of_its_share_of_what_is_left(sizes: dict[str, int], n: int) -> None:
    given_out = allocate(sizes, n, Allocation.PROPORTIONAL)
    n, total = min(n, sum(sizes.values())), sum(sizes.values()) - len(sizes)
    if n >= len(sizes) and total:
        for one, size in sizes.items():
            share = 1 + (n - len(sizes)) * (size - 1) / total
            assert abs(given_out[one] - share) < 1 + 1e-9


def test_an_allocation_by_hand() -> None:
    assert allocate({"a": 100, "b": 10, "c": 3}, 30, Allocation.EQUAL) == {"a": 17, "b": 10, "c": 3}
    assert allocate({"a": 100, "b": 10, "c": 10}, 12, Allocation.PROPORTIONAL) == {"a": 8, "b": 2, "c": 2}
    assert allocate({"a": 100, "b": 10, "c": 3}, 2, Allocation.EQUAL) == {"a": 1, "b": 1, "c": 0}


@pytest.mark.parametrize(
    ("confidence", "band"),
    [
        (None, "not given"),
        (0.0, "0 to 0.5"),
        (0.49999, "0 to 0.5"),
        (0.5, "0.5 to 0.8"),
        (0.95, "0.95 to 1"),
        (1.0, "0.95 to 1"),
    ],
)
def test_a_band_holds_its_lower_end_and_the_last_one_both(confidence: float | None, band: str) -> None:
    said = stratum_of(unit(1, confidence=confidence), [Stratifier.CONFIDENCE], bands=DEFAULT_BANDS)
    assert said == f"confidence {band}"


def test_a_stratum_says_what_it_is_in_words() -> None:
    said = stratum_of(unit(1, detected=True, both=False), list(Stratifier), bands=())
    assert said == "predicted yes, confidence 0 to 1, one narrative, CME and LE do not differ"
    assert stratum_of(unit(1, differ=True), [Stratifier.DISAGREEMENT], bands=()) == "CME and LE differ"
    assert stratum_of(unit(1), [], bands=()) == "all"


units = st.lists(
    st.builds(
        ReviewUnit,
        narrative_id=st.integers(1, 10**6).map(NarrativeId),
        detected=st.booleans(),
        confidence=st.none() | st.floats(0, 1),
        has_both=st.booleans(),
        disagrees=st.booleans(),
    ),
    min_size=1,
    max_size=60,
    unique_by=lambda one: one.narrative_id,
)


@given(units, st.integers(1, 80), rules, st.integers(0, 5))
def test_weights_of_a_sample_add_up_to_the_population_of_every_stratum_that_was_drawn(
    units: list[ReviewUnit], n: int, rule: Allocation, seed: int
) -> None:
    drawn = draw(units, n=n, stratifiers=list(Stratifier), bands=DEFAULT_BANDS, allocation=rule, seed=seed)
    by_id = {one.narrative_id: one for one in units}
    assert len({one.narrative_id for one in drawn}) == len(drawn) == min(n, len(units))
    weights: dict[str, float] = {}
    for one in drawn:
        assert one.stratum == stratum_of(by_id[one.narrative_id], list(Stratifier), bands=DEFAULT_BANDS)
        weights[one.stratum] = weights.get(one.stratum, 0.0) + 1 / one.probability
    for stratum, weight in weights.items():
        members = [one for one in units if stratum_of(one, list(Stratifier), bands=DEFAULT_BANDS) == stratum]
        assert math.isclose(weight, len(members))


@given(units, st.randoms(use_true_random=False))
def test_a_seed_means_one_sample_in_whatever_order_the_population_comes(units: list[ReviewUnit], rng: object) -> None:
    shuffled = list(units)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    options = {"n": 9, "stratifiers": [Stratifier.PREDICTED], "bands": (), "allocation": Allocation.EQUAL}
    assert draw(units, seed=4, **options) == draw(shuffled, seed=4, **options)  # type: ignore[arg-type]


def test_each_of_a_stratum_is_drawn_as_often_as_its_probability_says() -> None:
    population = [unit(number, detected=number <= 10) for number in range(1, 51)]
    seen = dict.fromkeys(range(1, 51), 0)
    for seed in range(2000):
        for one in draw(
            population, n=10, stratifiers=[Stratifier.PREDICTED], bands=(), allocation=Allocation.EQUAL, seed=seed
        ):
            seen[one.narrative_id] += 1
    # 5 of 10, 5 of 40; four standard deviations of a binomial
    assert all(abs(seen[number] - 1000) < 4 * math.sqrt(2000 * 0.25) for number in range(1, 11))
    assert all(abs(seen[number] - 250) < 4 * math.sqrt(2000 * 0.125 * 0.875) for number in range(11, 51))
