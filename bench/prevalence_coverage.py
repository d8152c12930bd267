"""How often intervals for a corrected prevalence hold the truth: the figures of docs/decisions/0004.

    python -m bench.prevalence_coverage             both tables, two minutes

The first table takes sensitivity and specificity from elsewhere, as with `--sensitivity 42/48`; the second takes them
from the labelled part of the same narratives, two of which an incident has.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from narrun_async.analysis.cohort import UNLABELLED, State, Units
from narrun_async.analysis.correction import corrected_prevalence
from narrun_async.analysis.evaluation_tree import Level, Validity
from narrun_async.analysis.levels import estimate_prevalence, own_validity
from narrun_async.analysis.proportions import share
from narrun_async.analysis.samples import Sample
from narrun_async.analysis.values import Share, Z

DRAWS = 2000


class Setting(NamedTuple):
    """What is true, and how many were looked at."""

    prevalence: float
    sensitivity: float
    specificity: float
    n: int
    n_positive: int
    n_negative: int


class Counts(NamedTuple):
    """What was seen."""

    detected: int
    n: int
    found: int
    n_positive: int
    rejected: int
    n_negative: int


Interval = tuple[float, float]
ELSEWHERE = (
    Setting(0.02, 0.875, 0.96, 35312, 48, 356),
    Setting(0.05, 0.875, 0.96, 35312, 48, 356),
    Setting(0.10, 0.875, 0.96, 35312, 48, 356),
    Setting(0.05, 0.875, 0.99, 35312, 48, 356),
    Setting(0.05, 0.80, 0.95, 5000, 20, 100),
    Setting(0.20, 0.90, 0.90, 2000, 50, 150),
    Setting(0.10, 0.95, 0.98, 3000, 48, 356),
)


def lang_reiczigel(seen: Counts, rng: np.random.Generator) -> Interval:
    known = Validity(
        sensitivity=Share(value=seen.found / seen.n_positive, n_effective=seen.n_positive),
        specificity=Share(value=seen.rejected / seen.n_negative, n_effective=seen.n_negative),
        source="",
    )
    interval = corrected_prevalence(Share(value=seen.detected / seen.n, n_effective=seen.n), known).interval
    return (0.0, 1.0) if interval is None else (interval.low, interval.high)


def delta(seen: Counts, rng: np.random.Generator) -> Interval:
    """Rogan and Gladen's own, normal."""
    p, se, sp = seen.detected / seen.n, seen.found / seen.n_positive, seen.rejected / seen.n_negative
    value = (p + sp - 1) / (se + sp - 1)
    variance = (
        p * (1 - p) / seen.n
        + value**2 * se * (1 - se) / seen.n_positive
        + (1 - value) ** 2 * sp * (1 - sp) / seen.n_negative
    )
    reach = Z * float(np.sqrt(variance)) / (se + sp - 1)
    return value - reach, value + reach


def parametric_bootstrap(seen: Counts, rng: np.random.Generator) -> Interval:
    p = rng.binomial(seen.n, seen.detected / seen.n, DRAWS) / seen.n
    se = rng.binomial(seen.n_positive, seen.found / seen.n_positive, DRAWS) / seen.n_positive
    sp = rng.binomial(seen.n_negative, seen.rejected / seen.n_negative, DRAWS) / seen.n_negative
    return _middle(p, se, sp)


def jeffreys(seen: Counts, rng: np.random.Generator) -> Interval:
    """Posterior with Jeffreys' prior for each of the three shares."""
    p = rng.beta(seen.detected + 0.5, seen.n - seen.detected + 0.5, DRAWS)
    se = rng.beta(seen.found + 0.5, seen.n_positive - seen.found + 0.5, DRAWS)
    sp = rng.beta(seen.rejected + 0.5, seen.n_negative - seen.rejected + 0.5, DRAWS)
    return _middle(p, se, sp)


def apparent_alone(seen: Counts, rng: np.random.Generator) -> Interval:
    """What is published where nothing is corrected."""
    p = seen.detected / seen.n
    reach = Z * float(np.sqrt(p * (1 - p) / seen.n))
    return p - reach, p + reach


def _middle(p: np.ndarray, se: np.ndarray, sp: np.ndarray) -> Interval:
    low, high = np.quantile((p + sp - 1) / (se + sp - 1), [0.025, 0.975])
    return float(low), float(high)


METHODS: tuple[Callable[[Counts, np.random.Generator], Interval], ...] = (
    lang_reiczigel,
    delta,
    parametric_bootstrap,
    jeffreys,
    apparent_alone,
)


def draw_counts(setting: Setting, rng: np.random.Generator) -> Counts:
    apparent = setting.prevalence * setting.sensitivity + (1 - setting.prevalence) * (1 - setting.specificity)
    return Counts(
        int(rng.binomial(setting.n, apparent)),
        setting.n,
        int(rng.binomial(setting.n_positive, setting.sensitivity)),
        setting.n_positive,
        int(rng.binomial(setting.n_negative, setting.specificity)),
        setting.n_negative,
    )


def first_table(n_simulations: int) -> None:
    names = [method.__name__ for method in METHODS]
    print("| prevalence, se, sp | n; n+, n- | " + " | ".join(names) + " |")
    print("|---|---|" + "---|" * len(names))
    for setting in ELSEWHERE:
        rng = np.random.default_rng(1)
        held, width = np.zeros(len(METHODS)), np.zeros(len(METHODS))
        for _ in range(n_simulations):
            seen = draw_counts(setting, rng)
            for place, method in enumerate(METHODS):
                low, high = (min(1.0, max(0.0, end)) for end in method(seen, rng))
                held[place] += low <= setting.prevalence <= high
                width[place] += high - low
        cells = [
            f"{100 * one:.1f} ({wide:.3f})"
            for one, wide in zip(held / n_simulations, width / n_simulations, strict=True)
        ]
        print(
            f"| {setting.prevalence}, {setting.sensitivity}, {setting.specificity} | {setting.n:,}; "
            f"{setting.n_positive}, {setting.n_negative} | " + " | ".join(cells) + " |"
        )


def draw_units(rng: np.random.Generator, *, n: int, n_labelled: int, truth: float, likeness: float) -> Units:
    """Two narratives an incident; in a share `likeness` of incidents both tell the same and are answered alike."""
    n_incidents = n // 2
    incident = np.repeat(np.arange(n_incidents), 2)
    alike = (rng.random(n_incidents) < likeness)[incident]
    coins = np.where(alike, rng.random((2, n_incidents))[:, incident], rng.random((2, n)))
    is_true = coins[0] < truth
    return Units(
        level=Level.NARRATIVES,
        state=np.full(n, State.ANSWERED),
        detected=np.where(is_true, coins[1] < 0.875, coins[1] < 0.04),
        is_open=np.zeros(n, dtype=bool),
        label=np.where(incident < n_labelled // 2, is_true, UNLABELLED).astype(np.int64),
        weight=np.ones(n),
        incident=incident,
    )


def _as_if_independent(units: Units) -> Units:
    return replace(units, incident=np.arange(units.state.size))


def _own_without_parts(units: Units) -> Interval:
    """Lang and Reiczigel over all units, as if the labelled were others."""
    everyone = share(Sample(hits=units.detected, weights=units.weight, clusters=units.incident))
    known = own_validity(units)
    assert everyone is not None and known is not None
    interval = corrected_prevalence(everyone, known).interval
    assert interval is not None
    return interval.low, interval.high


def _as_told(units: Units) -> Interval:
    interval = estimate_prevalence(units, own_validity(units)).corrected.interval
    assert interval is not None
    return interval.low, interval.high


def second_table(n_simulations: int) -> None:
    ways: Sequence[tuple[str, Callable[[Units], Interval]]] = (
        ("as told", _as_told),
        ("labelled taken for others", _own_without_parts),
        ("narratives taken for independent", lambda units: _as_told(_as_if_independent(units))),
    )
    print("| prevalence | labelled of 4,000 | alike | " + " | ".join(name for name, _ in ways) + " |")
    print("|---|---|---|" + "---|" * len(ways))
    for truth, n_labelled, likeness in (
        (0.05, 400, 0.0),
        (0.05, 400, 0.6),
        (0.12, 400, 1.0),
        (0.12, 1200, 0.0),
        (0.12, 1200, 0.6),
        (0.12, 3000, 0.6),
    ):
        rng = np.random.default_rng(1)
        held = np.zeros(len(ways))
        for _ in range(n_simulations):
            units = draw_units(rng, n=4000, n_labelled=n_labelled, truth=truth, likeness=likeness)
            for place, (_, way) in enumerate(ways):
                low, high = way(units)
                held[place] += low <= truth <= high
        cells = " | ".join(f"{100 * one:.1f}" for one in held / n_simulations)
        print(f"| {truth} | {n_labelled:,} | {likeness} | {cells} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000)
    chosen = parser.parse_args()
    first_table(chosen.simulations)
    print()
    second_table(chosen.simulations // 2)
