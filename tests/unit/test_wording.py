"""Numbers, durations and names in words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.reporting.wording import (
    aligned,
    categories_text,
    clock_text,
    duration_text,
    percent_text,
    printable,
    rate_text,
    short_count,
)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0:00:00"),
        (-3, "0:00:00"),
        (59.6, "0:01:00"),
        (3599.5, "1:00:00"),
        (48.8 * 3600, "48:48:00"),
        (100 * 3600 - 1, "99:59:59"),
        (100 * 3600, "4 d 4:00:00"),
        (math.inf, "unknown"),
        (math.nan, "unknown"),
    ],
)
def test_clock_text_says_hours_minutes_and_seconds(seconds: float, said: str) -> None:
    assert clock_text(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (-1, "0.0 s"),
        (0.0004, "0 ms"),
        (0.24, "240 ms"),
        (0.9996, "1.0 s"),
        (7.31, "7.3 s"),
        (59.94, "59.9 s"),
        (59.96, "0:01:00"),
        (3725, "1:02:05"),
        (math.inf, "unknown"),
    ],
)
def test_duration_text_takes_the_unit_that_fits(seconds: float, said: str) -> None:
    assert duration_text(seconds) == said


@pytest.mark.parametrize(
    ("per_s", "said"),
    [
        (1234.4, "1,234/s"),
        (42.4, "42/s"),
        (9.96, "10/s"),
        (4.24, "4.2/s"),
        (1.0, "1.0/s"),
        (1 / 4.8, "4.8 s per narrative"),
        (1 / 90, "0:01:30 per narrative"),
    ],
)
def test_rate_text_turns_round_when_narratives_are_slow(per_s: float, said: str) -> None:
    assert rate_text(per_s) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (9_949, "9.9k"), (9_950, "10k"), (999_499, "999k"), (999_500, "1.0M")],
)
def test_short_count_keeps_two_or_three_digits(count: int, said: str) -> None:
    assert short_count(count) == said


@given(st.integers(0, 10**14))
def test_short_count_never_needs_more_than_five_characters(count: int) -> None:
    assert len(short_count(count)) <= 5


@given(st.integers(1, 10**6).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole))))
def test_percent_says_100_only_when_nothing_is_left(counts: tuple[int, int]) -> None:
    part, whole = counts
    assert (percent_text(part, whole) == "100.0%") == (part == whole)


def test_categories_come_most_frequent_first_and_the_rest_is_summed_up() -> None:
    counts = {"empty": 1, "timeout": 1200, "refusal": 7, "schema": 2}
    assert categories_text(counts) == "timeout 1,200, refusal 7, schema 2, empty 1"
    assert categories_text(counts, at_most=2) == "timeout 1,200, refusal 7, and 3 more"


def test_names_cannot_write_on_the_terminal() -> None:
    assert printable("run\x1b[2J\nnext\udc80") == "run?[2J?next?"


def test_columns_line_up_whatever_the_width_of_their_letters() -> None:
    assert aligned([("name", "n"), ("漢字", "10"), ("é", "7")], right=frozenset({1})) == [
        "name   n",
        "漢字  10",
        "é      7",
    ]
