"""How often intervals from a review sample hold the truth: the figures of docs/decisions/0007.

    python -m bench.review_coverage                 all settings, half an hour

Every review is drawn as `narrun review sample` draws it, of 10,000 narratives whose truth is known.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from narrun_async.analysis.cohort import UNLABELLED, State, Units
from narrun_async.analysis.evaluation_tree import Level
from narrun_async.analysis.levels import assess_level, own_validity
from narrun_async.analysis.proportions import kish_size, wilson_interval
from narrun_async.analysis.resampling import Bootstrap
from narrun_async.analysis.samples import Bools, Floats
from narrun_async.analysis.values import Interval, Method
from narrun_async.metrics.sampling import DEFAULT_BANDS, Allocation, ReviewUnit, Stratifier, draw
from narrun_async.models.ids import NarrativeId

N = 10_000
MEASURES = ("sensitivity", "specificity", "ppv", "npv", "labelled", "corrected", "f1", "kappa", "mcc")


class Setting(NamedTuple):
    """What is true, and what is drawn."""

    prevalence: float
    sensitivity: float
    specificity: float
    n: int
    strata: tuple[Stratifier, ...]


BY_ANSWER = (Stratifier.PREDICTED,)
BY_CONFIDENCE = (Stratifier.PREDICTED, Stratifier.CONFIDENCE)
SETTINGS = (
    Setting(0.05, 0.875, 0.96, 120, BY_ANSWER),
    Setting(0.05, 0.875, 0.96, 300, BY_ANSWER),
    Setting(0.10, 0.80, 0.95, 200, BY_ANSWER),
    Setting(0.05, 0.95, 0.98, 300, BY_ANSWER),
    Setting(0.05, 0.875, 0.96, 120, BY_CONFIDENCE),
    Setting(0.05, 0.875, 0.96, 300, BY_CONFIDENCE),
    Setting(0.10, 0.80, 0.95, 200, BY_CONFIDENCE),
)


def draw_review(rng: np.random.Generator, setting: Setting) -> tuple[Units, Bools]:
    """A cohort with a review of it, and the truth; wrong answers are less sure of themselves."""
    truth = rng.random(N) < setting.prevalence
    is_wrong = np.where(truth, rng.random(N) > setting.sensitivity, rng.random(N) > setting.specificity)
    confidence = np.clip(np.where(is_wrong, rng.normal(0.8, 0.12, N), rng.normal(0.93, 0.08, N)), 0.4, 1.0)
    detected = truth ^ is_wrong
    population = [
        ReviewUnit(narrative_id=NarrativeId(number), detected=said, confidence=sure, has_both=False, disagrees=False)
        for number, (said, sure) in enumerate(zip(detected.tolist(), confidence.tolist(), strict=True))
    ]
    drawn = draw(
        population,
        n=setting.n,
        stratifiers=setting.strata,
        bands=DEFAULT_BANDS,
        allocation=Allocation.EQUAL,
        seed=int(rng.integers(2**31)),
    )
    label, weight = np.full(N, UNLABELLED), np.ones(N)
    places = [int(one.narrative_id) for one in drawn]
    label[places], weight[places] = truth[places], [1 / one.probability for one in drawn]
    units = Units(
        level=Level.NARRATIVES,
        state=np.full(N, int(State.ANSWERED)),
        detected=detected,
        is_open=np.zeros(N, dtype=bool),
        label=label,
        weight=weight,
        incident=np.arange(N),
        is_drawn_by_answer=True,
    )
    return units, truth


def true_values(detected: Bools, truth: Bools) -> Sequence[float]:
    """In the order of `MEASURES`."""
    tp, fp = int((detected & truth).sum()), int((detected & ~truth).sum())
    fn, tn = int((~detected & truth).sum()), int((~detected & ~truth).sum())
    by_chance = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / N**2
    return (
        tp / (tp + fn),
        tn / (tn + fp),
        tp / (tp + fp),
        tn / (tn + fn),
        float(truth.mean()),
        float(truth.mean()),
        2 * tp / (2 * tp + fp + fn),
        ((tp + tn) / N - by_chance) / (1 - by_chance),
        float(np.corrcoef(detected, truth)[0, 1]),
    )


def told_intervals(units: Units, bootstrap: Bootstrap) -> Sequence[Interval | None]:
    """In the order of `MEASURES`."""
    found = assess_level(units, bootstrap, own_validity)
    performance, prevalence = found.performance, found.prevalence
    measures = (
        *(getattr(performance, name) for name in MEASURES[:4]),
        prevalence.labelled,
        prevalence.corrected,
        performance.f1,
        found.agreement.kappa,
        performance.mcc,
    )
    return [one.best_interval for one in measures]


def kish_intervals(units: Units) -> Sequence[Interval | None]:
    """Wilson's with Kish's number of units, for those of `MEASURES` that are shares of labels."""
    pairs = units.pairs(units.is_evaluated)
    answer, label, weight = pairs.first, pairs.second, pairs.weights
    shares = ((answer, label), (~answer, ~label), (label, answer), (~label, ~answer), (label, np.ones_like(label)))
    return [*(_kish_interval(hits[chosen], weight[chosen]) for hits, chosen in shares), *[None] * 4]


def _kish_interval(hits: Bools, weights: Floats) -> Interval | None:
    if not hits.size:
        return None
    return wilson_interval(float(np.average(hits, weights=weights)), kish_size(weights), method=Method.WILSON)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args(argv)
    print("| prevalence, se, sp | n, strata | way | " + " | ".join(MEASURES) + " |")
    print("|---|---|---|" + "---|" * len(MEASURES))
    for setting in SETTINGS:
        rng = np.random.default_rng(1)
        told: list[tuple[Sequence[float], Sequence[Interval | None], Sequence[Interval | None]]] = []
        for _ in range(options.simulations):
            units, truth = draw_review(rng, setting)
            bootstrap = Bootstrap(n_resamples=options.resamples, seed=1)
            told.append((true_values(units.detected, truth), told_intervals(units, bootstrap), kish_intervals(units)))
        where = f"{setting.prevalence}, {setting.sensitivity}, {setting.specificity} | {setting.n}, "
        where += ", ".join(setting.strata)
        for name, place in (("as told", 1), ("Kish", 2)):
            cells = [_cell([(one[0][n], one[place][n]) for one in told]) for n in range(len(MEASURES))]
            print(f"| {where} | {name} | {' | '.join(cells)} |", flush=True)


def _cell(found: Sequence[tuple[float, Interval | None]]) -> str:
    """Percent that hold the truth, mean width in brackets."""
    told = [(value, one) for value, one in found if one is not None]
    if not told:
        return ""
    held = sum(one.low - 1e-12 <= value <= one.high + 1e-12 for value, one in told)
    width = sum(one.high - one.low for _, one in told) / len(told)
    return f"{100 * held / len(told):.0f} ({width:.3f})"


if __name__ == "__main__":
    main()
