"""Owns the correction of a share for what the answers miss and invent, and what a yes is worth elsewhere."""

from __future__ import annotations

import math

from narrun_async.analysis.evaluation_tree import PredictiveValues, Validity
from narrun_async.analysis.mover import Estimate, as_estimate, weighted_sum
from narrun_async.analysis.values import Interval, Measure, Method, Share, Z

_TELLS_NOTHING = "cannot be corrected: sensitivity and specificity add up to 1 or less, so the answers tell nothing"


def corrected_prevalence(apparent: Share, validity: Validity) -> Measure:
    """(p + sp - 1) / (se + sp - 1), cut off at 0 and 1: W. J. Rogan, B. Gladen, Am. J. Epidemiol. 107 (1978) 71-76.

    The interval carries the uncertainty of all three, which are taken for independent: Z. Lang, J. Reiczigel, Prev.
    Vet. Med. 113 (2014) 13-22, their adjusted interval (equations 6, 7, 15-17; equation 4 with (1 - p)², not
    (1 + p)²). Why this one: docs/decisions/0004.
    """
    value = _rogan_gladen(apparent, validity)
    if value is None:
        return Measure(value=None, remark=_TELLS_NOTHING)
    low, high = _lang_reiczigel(apparent, validity)
    return Measure(
        value=_within_one(value),
        interval=Interval(low=_within_one(low), high=_within_one(high), method=Method.LANG_REICZIGEL),
    )


def corrected_beside_labels(labelled: Measure, unlabelled: Share, validity: Validity, *, fraction: float) -> Measure:
    """The same where sensitivity and specificity come from the labelled part of the very units.

    The number is Rogan's and Gladen's of all units, for on the labelled part theirs is the labelled rate itself:
    fraction × labelled rate + (1 - fraction) × corrected rate of the others. But the labelled part would be taken for
    uncertain twice, and cover too much (97 % with 7 % labelled, more with more). So the interval is put together from
    those of the two parts, which are independent: G. Y. Zou, A. Donner, Stat. Med. 27 (2008) 1693-1702.

    :param fraction: of the units, those that are labelled; 0 to 1
    """
    rest = _rogan_gladen(unlabelled, validity)
    of_labelled = as_estimate(labelled)
    assert of_labelled is not None
    if rest is None:
        return Measure(value=None, remark=_TELLS_NOTHING)
    low, high = _lang_reiczigel(unlabelled, validity)
    found = weighted_sum(
        [
            (fraction, of_labelled),
            (1 - fraction, Estimate(value=rest, low=low, high=high)),
        ]
    )
    return Measure(
        value=_within_one(found.value),
        interval=Interval(low=_within_one(found.low), high=_within_one(found.high), method=Method.MOVER),
    )


def _rogan_gladen(apparent: Share, validity: Validity) -> float | None:
    """Not cut off; None where a yes is no likelier for what is than for what is not."""
    youden = validity.sensitivity.value + validity.specificity.value - 1
    return (apparent.value + validity.specificity.value - 1) / youden if youden > 0 else None


def _lang_reiczigel(apparent: Share, validity: Validity) -> tuple[float, float]:
    """The ends of the interval before they are cut off."""
    z2 = Z**2
    n = apparent.n_effective + z2
    p = (apparent.n_effective * apparent.value + z2 / 2) / n
    se_value, se_variance = _plus_one_each(validity.sensitivity)
    sp_value, sp_variance = _plus_one_each(validity.specificity)
    youden = se_value + sp_value - 1
    if youden <= 0:
        return 0.0, 1.0
    prevalence = (p + sp_value - 1) / youden
    shift = 2 * z2 * (prevalence * se_variance - (1 - prevalence) * sp_variance)
    variance = p * (1 - p) / n + prevalence**2 * se_variance + (1 - prevalence) ** 2 * sp_variance
    reach = Z * math.sqrt(variance) / youden
    return prevalence + shift - reach, prevalence + shift + reach


def _plus_one_each(share: Share) -> tuple[float, float]:
    """A share after one more hit and one more miss, and its variance."""
    n = share.n_effective + 2
    value = (share.n_effective * share.value + 1) / n
    return value, value * (1 - value) / n


def predictive_values(validity: Validity, prevalence: float) -> PredictiveValues:
    """What a yes and a no are worth at a known prevalence, from sensitivity and specificity.

    The interval is the logit one of N. D. Mercaldo, K. F. Lau, X. H. Zhou, Stat. Med. 26 (2007) 2170-2183; where
    sensitivity or specificity is 0 or 1 their adjusted one, which adds z²/2 hits and as many misses to both, stretched
    to hold the value itself.

    :param prevalence: above 0 and below 1
    """
    se, sp = validity.sensitivity, validity.specificity
    return PredictiveValues(
        prevalence=prevalence,
        ppv=_value_of_yes(se, sp, prevalence),
        npv=_value_of_yes(sp, se, 1 - prevalence),
    )


def _value_of_yes(hits: Share, rejections: Share, common: float) -> Measure:
    """PPV of a test; NPV with both arguments exchanged, and the complement of the prevalence."""
    yes = hits.value * common + (1 - rejections.value) * (1 - common)
    if yes == 0:
        return Measure(value=None, remark="undefined: such an answer would never be given")
    value = hits.value * common / yes
    if not (0 < hits.value < 1 and 0 < rejections.value < 1):
        hits, rejections = _plus_half_z2_each(hits), _plus_half_z2_each(rejections)
    found, invented = hits.value, 1 - rejections.value
    logit = math.log(found * common / (invented * (1 - common)))
    variance = (1 - found) / (found * hits.n_effective) + (1 - invented) / (invented * rejections.n_effective)
    low, high = (_expit(logit + sign * Z * math.sqrt(variance)) for sign in (-1, 1))
    interval = Interval(low=min(low, value), high=max(high, value), method=Method.LOGIT)
    return Measure(value=value, interval=interval)


def _plus_half_z2_each(share: Share) -> Share:
    n = share.n_effective + Z**2
    return Share(value=(share.n_effective * share.value + Z**2 / 2) / n, n_effective=n)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _within_one(value: float) -> float:
    return min(1.0, max(0.0, value))
