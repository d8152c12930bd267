"""Owns the measures of a 2×2 table, for one table or for thousands at once: the last axis is tp, fp, fn, tn.

scikit-learn and statsmodels have most of them for one pair of vectors or one table at a time; the bootstrap needs them
for ten thousand tables. The tests hold each against the libraries to 1e-9. Where a denominator is zero the measure is
NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from narrun_async.analysis.samples import Floats

#: tables (…, 4) → values (…)
Statistic: TypeAlias = Callable[[Floats], Floats]


def _cells(tables: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    return tables[..., 0], tables[..., 1], tables[..., 2], tables[..., 3]


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    ratio: Floats = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator != 0)
    return ratio


def sensitivity(tables: Floats) -> Floats:
    tp, _, fn, _ = _cells(tables)
    return _ratio(tp, tp + fn)


def specificity(tables: Floats) -> Floats:
    _, fp, _, tn = _cells(tables)
    return _ratio(tn, tn + fp)


def ppv(tables: Floats) -> Floats:
    tp, fp, _, _ = _cells(tables)
    return _ratio(tp, tp + fp)


def npv(tables: Floats) -> Floats:
    _, _, fn, tn = _cells(tables)
    return _ratio(tn, tn + fn)


def balanced_accuracy(tables: Floats) -> Floats:
    """The mean of sensitivity and specificity."""
    return (sensitivity(tables) + specificity(tables)) / 2


def f1(tables: Floats) -> Floats:
    """2 tp / (2 tp + fp + fn), also called Dice's coefficient, and positive agreement."""
    tp, fp, fn, _ = _cells(tables)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def mcc(tables: Floats) -> Floats:
    """B. W. Matthews, Biochim. Biophys. Acta 405 (1975) 442-451: the correlation of the two judgements."""
    tp, fp, fn, tn = _cells(tables)
    margins = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return _ratio(tp * tn - fp * fn, margins)


def observed_agreement(tables: Floats) -> Floats:
    tp, _, _, tn = _cells(tables)
    return _ratio(tp + tn, tables.sum(axis=-1))


def cohens_kappa(tables: Floats) -> Floats:
    """J. Cohen, Educ. Psychol. Meas. 20 (1960) 37-46: agreement beyond what two independent judges would reach."""
    tp, fp, fn, tn = _cells(tables)
    return _ratio(2 * (tp * tn - fp * fn), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn))


def pabak(tables: Floats) -> Floats:
    """2 p_o - 1: T. Byrt, J. Bishop, J. B. Carlin, J. Clin. Epidemiol. 46 (1993) 423-429."""
    return 2 * observed_agreement(tables) - 1


def gwets_ac1(tables: Floats) -> Floats:
    """(p_o - p_e) / (1 - p_e), p_e = 2 q (1 - q), q the mean of both shares of yes.

    K. L. Gwet, Br. J. Math. Stat. Psychol. 61 (2008) 29-48. Chance agreement is at most a half, so that it stays
    defined, and near p_o, where almost all units are alike.
    """
    tp, fp, fn, _ = _cells(tables)
    mean_yes = _ratio(2 * tp + fp + fn, 2 * tables.sum(axis=-1))
    by_chance = 2 * mean_yes * (1 - mean_yes)
    return (observed_agreement(tables) - by_chance) / (1 - by_chance)


def negative_agreement(tables: Floats) -> Floats:
    """2 tn / (2 tn + fp + fn): D. V. Cicchetti, A. R. Feinstein, J. Clin. Epidemiol. 43 (1990) 551-558."""
    _, fp, fn, tn = _cells(tables)
    return _ratio(2 * tn, 2 * tn + fp + fn)


#: 2 tp / (2 tp + fp + fn), ibid.; the same number as F1
positive_agreement = f1


def ac1_standard_error(table: Floats) -> float:
    """Of `gwets_ac1` for two judges: Gwet (2008), with an infinite population of units.

    1 / (n (1 - p_e)²) times p_o (1 - p_o) - 4 (1 - γ) (Σ_k p_kk (1 - π_k) - p_o p_e)
    + 4 (1 - γ)² (Σ_kl p_kl (1 - (π_k + π_l) / 2)² - p_e²), π_k the mean share of category k.
    """
    n = table.sum()
    shares = (table / n).reshape(2, 2)
    means = (shares.sum(axis=0) + shares.sum(axis=1)) / 2
    observed, by_chance = np.trace(shares), 2 * means[0] * means[1]
    distance = 1 - (observed - by_chance) / (1 - by_chance)
    on_diagonal = np.diag(shares) @ (1 - means) - observed * by_chance
    everywhere = (shares * np.square(1 - (means[:, None] + means) / 2)).sum() - by_chance**2
    spread = observed * (1 - observed) - 4 * distance * on_diagonal + 4 * distance**2 * everywhere
    return float(np.sqrt(max(spread, 0.0) / n) / (1 - by_chance))
