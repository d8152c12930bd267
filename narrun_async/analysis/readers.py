"""How far two readers of the same texts agree, from the four counts of what they said."""

from __future__ import annotations

import numpy as np

from narrun_async.analysis.assessment import assess_agreement
from narrun_async.analysis.resampling import Bootstrap, resample
from narrun_async.analysis.samples import Pairs, sum_by_cluster
from narrun_async.analysis.values import Agreement


def assess_readers(*, both_yes: int, first_only: int, second_only: int, both_no: int) -> Agreement:
    """Raw agreement and agreement beyond chance; every text counts once, whatever it stands for in a population."""
    counts = (both_yes, first_only, second_only, both_no)
    n = sum(counts)
    pairs = Pairs(
        first=np.repeat([True, True, False, False], counts),
        second=np.repeat([True, False, True, False], counts),
        weights=np.ones(n),
        clusters=np.arange(n),
    )
    contributions = sum_by_cluster(pairs.cells, pairs.weights, pairs.clusters)
    return assess_agreement(pairs, resample(contributions, Bootstrap(n_resamples=0, seed=0), label="readers"))
