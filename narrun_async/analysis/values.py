"""The values that every evaluation is made of: measures with their parts, their interval, and why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: of every interval of this program, two-sided
CONFIDENCE = 0.95
#: and how many standard errors of a normal estimate that is, to each side
Z = 1.959963984540054


class Method(StrEnum):
    """How an interval was made; docs/metrics.md has the sources."""

    #: score interval of a proportion, units taken for independent
    WILSON = "wilson"
    #: the same, with the number of units that independent ones of equal weight would have to be
    WILSON_EFFECTIVE = "wilson-effective-n"
    #: bias-corrected and accelerated bootstrap, incidents drawn with all that belongs to them
    BCA = "bootstrap-bca"
    #: the plain percentiles of such a bootstrap, for differences
    PERCENTILES = "bootstrap-percentiles"
    #: estimate ± 1.96 standard errors of the published formula
    NORMAL = "normal"
    LANG_REICZIGEL = "lang-reiczigel"
    #: of a weighted sum or a ratio, from the intervals of its parts
    MOVER = "mover"
    #: normal on the logit scale
    LOGIT = "logit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Covers the true value with 95 % confidence, as far as its method holds."""

    low: float
    high: float
    method: Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number with all that is needed to judge it."""

    #: None where it is not defined; `remark` says why
    value: float | None
    #: sums of weights; plain counts where every weight is 1; None where the measure is no ratio of counts
    numerator: float | None = None
    denominator: float | None = None
    interval: Interval | None = None
    #: the interval that allows for narratives of one incident being alike; None where no incident has two of them
    clustered: Interval | None = None
    #: why there is no value or no interval, or what one should know of it; may be empty
    remark: str = ""

    @property
    def best_interval(self) -> Interval | None:
        """The one to report: it allows for the narratives of an incident being alike."""
        return self.clustered or self.interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """A 2×2 table as sums of weights; plain counts where every weight is 1."""

    #: both say yes
    tp: float
    #: the answer says yes, the label no
    fp: float
    #: the answer says no, the label yes
    fn: float
    #: both say no
    tn: float
    #: how many units are in it, unweighted
    n_units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """The answers as a diagnostic test for the label."""

    sensitivity: Measure
    specificity: Measure
    #: of those detected, the share that is labelled positive; holds for the prevalence among the labelled only
    ppv: Measure
    #: of those not detected, the share that is labelled negative; likewise
    npv: Measure
    balanced_accuracy: Measure
    f1: Measure
    #: Matthews' correlation coefficient, -1 to 1
    mcc: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two judgements of the same units, each yes or no."""

    #: `tp` both yes, `fp` the first alone, `fn` the second alone, `tn` neither
    table: Confusion
    #: share of units on which both say the same; for answers and labels this is the accuracy
    observed: Measure
    kappa: Measure
    #: prevalence- and bias-adjusted kappa: 2 × observed - 1
    pabak: Measure
    #: Gwet's first-order agreement coefficient
    ac1: Measure
    #: of all that either says yes to, the share that the other confirms; for answers and labels this is F1
    positive: Measure
    negative: Measure
    #: exact McNemar: does one of them say yes more often? None where there is no unit, or where units have weights
    p_mcnemar: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Where a measure would lie if everything unknown were wrong, and if it were right; None where undefined."""

    worst: float | None
    best: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A proportion and on how many independent units it rests, for formulas that carry its uncertainty on."""

    value: float
    #: need not be whole: units that are alike, or have unequal weights, count for less
    n_effective: float
