"""Owns the shape of what is counted: units with their weights, and the incidents that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from narrun_async.analysis.values import Confusion

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

#: cells of a 2×2 table, in the order of `Confusion`
N_CELLS = 4


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Units that have a property or not, in parallel arrays."""

    hits: Bools
    weights: Floats
    #: incident of each unit, any numbers; units of the same incident may be alike
    clusters: Ints

    def __getitem__(self, chosen: Bools) -> Sample:
        return Sample(hits=self.hits[chosen], weights=self.weights[chosen], clusters=self.clusters[chosen])

    @property
    def n_units(self) -> int:
        return int(self.hits.size)

    @property
    def apart(self) -> Sample:
        """The same, every unit taken for an incident of its own."""
        return Sample(hits=self.hits, weights=self.weights, clusters=np.arange(self.n_units))

    @cached_property
    def has_repeats(self) -> bool:
        """Whether an incident has more than one unit."""
        return bool(np.unique(self.clusters).size < self.n_units)

    @cached_property
    def is_weighted(self) -> bool:
        """Whether sums of weights are anything but counts."""
        return bool(np.any(self.weights != 1))


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Units that were judged twice, in parallel arrays: by an answer and a label, say."""

    first: Bools
    second: Bools
    weights: Floats
    clusters: Ints
    #: the weights follow from what the first says: units were drawn by it, to be judged by the second
    is_drawn_by_first: bool = False

    def __getitem__(self, chosen: Bools) -> Pairs:
        return replace(
            self,
            first=self.first[chosen],
            second=self.second[chosen],
            weights=self.weights[chosen],
            clusters=self.clusters[chosen],
        )

    @property
    def opposite(self) -> Pairs:
        """The same units, with yes and no exchanged."""
        return replace(self, first=~self.first, second=~self.second)

    def sample(self, hits: Bools) -> Sample:
        """The same units, with a property of ours."""
        return Sample(hits=hits, weights=self.weights, clusters=self.clusters)

    @cached_property
    def is_weighted(self) -> bool:
        """Whether sums of weights are anything but counts."""
        return bool(np.any(self.weights != 1))

    @cached_property
    def cells(self) -> Ints:
        """Which cell of the table a unit falls into: 0 both yes, 1 the first alone, 2 the second alone, 3 neither."""
        return cells_of(self.first, self.second)

    @cached_property
    def confusion(self) -> Confusion:
        tp, fp, fn, tn = np.bincount(self.cells, weights=self.weights, minlength=N_CELLS).tolist()
        return Confusion(tp=tp, fp=fp, fn=fn, tn=tn, n_units=int(self.first.size))


def cells_of(first: Bools, second: Bools) -> Ints:
    """`Pairs.cells`, of arrays of any equal shape."""
    return np.where(first, np.where(second, 0, 1), np.where(second, 2, 3)).astype(np.int64)


def cells_of_number(number: int) -> slice:
    """Where the four cells of one table are among those of several, side by side."""
    return slice(N_CELLS * number, N_CELLS * (number + 1))


def sum_by_cluster(cells: Ints, weights: Floats, clusters: Ints, n_cells: int = N_CELLS) -> Floats:
    """What each incident adds to each cell: one row an incident, in the order of their numbers."""
    _, codes = np.unique(clusters, return_inverse=True)
    n_clusters = int(codes.max()) + 1 if codes.size else 0
    flat = np.bincount(codes * n_cells + cells, weights=weights, minlength=n_clusters * n_cells)
    return flat.astype(np.float64).reshape(n_clusters, n_cells)
