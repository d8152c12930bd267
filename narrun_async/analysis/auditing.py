"""Owns whether tables of counts give a small count away, alone or together.

Tables over the same incidents hang together: detected narratives less detected incidents, for instance, are the
incidents of which both narratives are detected. So tables are shown one after the other, and each only if its own
counts are large and no small count, in whatever table, can then be told to be small: among all cohorts that would give
the same tables there must be one in which that count is large. Where counts that are shown in any case leave no room
for that (of three incidents with both narratives, at most three are detected), it must stay as open as these leave it.
Integer programming over the kinds of incident finds such cohorts, or says that there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import Literal, TypeAlias

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from narrun_async.analysis.samples import Floats, Ints

YesNo: TypeAlias = Literal["yes", "no"]
#: an answer, and a label where there is one
Judged: TypeAlias = tuple[YesNo, YesNo | None]

_ANSWERS: tuple[YesNo, YesNo] = ("yes", "no")
_LABELS: tuple[YesNo | None, ...] = (*_ANSWERS, None)
#: nodes of a search, which seldom takes more than one; what is not found by then counts as impossible
_MOST_NODES = 1000


@dataclass(frozen=True, slots=True)
class Incident:
    """All that tables see of an incident with an answer: its answered narratives, and its own label."""

    cme: Judged | None
    le: Judged | None
    label: YesNo | None

    @property
    def narratives(self) -> Sequence[Judged]:
        return [one for one in (self.cme, self.le) if one is not None]

    @property
    def judged(self) -> Judged:
        return ("yes" if any(answer == "yes" for answer, _ in self.narratives) else "no"), self.label

    @property
    def is_labelled_like_its_narratives(self) -> bool:
        """Yes if any of them is, and no if both are no; one alone may be no where the other has no answer."""
        labels = {label for _, label in self.narratives}
        if self.label == "no":
            return "yes" not in labels
        return not (self.label == "yes" and labels == {"no"} and len(self.narratives) == 2)


#: how much an incident adds to a count
Count: TypeAlias = Callable[[Incident], int]
#: answers with their labels that an incident has at some level
Units: TypeAlias = Callable[[Incident], Iterable[Judged]]


def each_narrative(one: Incident) -> Iterable[Judged]:
    return one.narratives


def each_cme(one: Incident) -> Iterable[Judged]:
    return [one.cme] if one.cme is not None else []


def each_le(one: Incident) -> Iterable[Judged]:
    return [one.le] if one.le is not None else []


def each_incident(one: Incident) -> Iterable[Judged]:
    return [one.judged]


def each_with_both(one: Incident) -> Iterable[Judged]:
    return [one.judged] if len(one.narratives) == 2 else []


LEVELS: tuple[Units, ...] = (each_narrative, each_cme, each_le, each_incident, each_with_both)
_OF_ONE_INCIDENT: tuple[Units, ...] = (each_incident, each_cme, each_le)


def answers(units: Units) -> tuple[Count, ...]:
    """How many say yes, and no."""
    return tuple(_counting(units, answer, _LABELS) for answer in _ANSWERS)


def cells(units: Units) -> tuple[Count, ...]:
    """A 2×2 table of answers and labels."""
    return tuple(_counting(units, answer, (label,)) for answer, label in product(_ANSWERS, _ANSWERS))


def pairs() -> tuple[Count, ...]:
    """A 2×2 table of the answers about both narratives of an incident."""
    return tuple(
        lambda one, said=said: int((one.cme or "-")[0] == said[0] and (one.le or "-")[0] == said[1])
        for said in product(_ANSWERS, _ANSWERS)
    )


def answers_within() -> tuple[Count, ...]:
    """Incidents by what their narratives say, whichever kind says it.

    Whoever knows an interval that allows for the narratives of an incident being alike can know as much.
    """
    return tuple(
        lambda one, said=said: int(sorted(answer for answer, _ in one.narratives) == said)
        for said in (["no"], ["yes"], ["no", "no"], ["no", "yes"], ["yes", "yes"])
    )


def judged_within() -> tuple[Count, ...]:
    """The same with the labels of the narratives, for measures that hold answers against labels."""
    judged = sorted(product(_ANSWERS, _LABELS), key=str)
    single, double = [[one] for one in judged], [list(two) for two in combinations_with_replacement(judged, 2)]
    return tuple(_having(said) for said in (*single, *double))


def _having(said: Sequence[Judged]) -> Count:
    return lambda one: int(sorted(one.narratives, key=str) == said)


def _counting(units: Units, answer: YesNo, labels: Sequence[YesNo | None]) -> Count:
    return lambda one: sum(said == answer and label in labels for said, label in units(one))


def _rests() -> tuple[Count, ...]:
    """What is left where a part that may be shown is subtracted from its whole."""
    unlabelled = [_counting(units, answer, (None,)) for units in LEVELS for answer in _ANSWERS]
    alone = [_counting(_if_alone(units), answer, _LABELS) for units in _OF_ONE_INCIDENT for answer in _ANSWERS]
    return (*unlabelled, *alone)


def _if_alone(units: Units) -> Units:
    return lambda one: units(one) if len(one.narratives) == 1 else []


#: everything that a report may show as a table
_ALL_TABLES: tuple[tuple[Count, ...], ...] = (*map(answers, LEVELS), *map(cells, LEVELS), pairs())


@dataclass(frozen=True, slots=True)
class _Aim:
    """A cohort that must be possible: one in which some count lies within limits."""

    count: Floats
    least: float = -np.inf
    most: float = np.inf

    def is_reached_by(self, cohort: Floats) -> bool:
        return bool(self.least <= self.count @ cohort <= self.most)


class Audit:
    """Lets tables be shown one after the other, as long as they give no small count away."""

    def __init__(self, incidents: Sequence[Incident], *, below: int) -> None:
        """:param below: counts below it are small, zero included; a table of nobody has nothing to hide"""
        self._below = below
        found = Counter(incidents)
        self._kinds = kinds_of_incident(found)
        self._cohort = np.array([found[kind] for kind in self._kinds], dtype=float)
        self._shown = self._rows(COUNTS_OF_WORK)
        #: cohorts, this one included, that nobody who sees what is shown can tell from this one
        self._cohorts = [self._cohort]
        self._aims = [aim for count in self._small_counts() for aim in self._aims_of(count)]

    def show(self, *tables: Sequence[Count], known: Sequence[Count] = ()) -> bool:
        """Whether these tables may be shown, all or none; if so, they are.

        :param known: counts that can be known by whoever sees them, without being shown
        """
        parts = [self._rows(table) for table in tables]
        if any(is_small(part @ self._cohort, self._below) for part in parts):
            return False
        shown = np.vstack([self._shown, *parts, self._rows(known)])
        cohorts = [one for one in self._cohorts if np.array_equal(shown @ one, shown @ self._cohort)]
        for aim in self._aims:
            if not any(map(aim.is_reached_by, cohorts)):
                if (one := self._find_cohort(aim, shown)) is None:
                    return False
                cohorts.append(one)
        self._shown, self._cohorts = shown, cohorts
        return True

    def counts_nobody(self, *tables: Sequence[Count]) -> bool:
        return not any((self._rows(table) @ self._cohort).any() for table in tables)

    def _small_counts(self) -> Sequence[Floats]:
        tables = [self._rows(table) for table in _ALL_TABLES]
        small = [row for table in tables for row in table if is_small(table @ self._cohort, self._below)]
        small = [row for row in small if row @ self._cohort < self._below]
        small += [row for row in self._rows(_rests()) if 0 < row @ self._cohort < self._below]
        return [np.array(one) for one in {tuple(row): None for row in small}]

    def _aims_of(self, count: Floats) -> Sequence[_Aim]:
        is_large = _Aim(count, least=self._below)
        if (one := self._find_cohort(is_large, self._shown)) is not None:
            self._cohorts.append(one)
            return [is_large]
        extremes = [self._find_cohort(_Aim(count), self._shown, towards=towards) for towards in (-count, count)]
        return [
            _Aim(count, **{end: float(count @ one)})
            for end, one in zip(("least", "most"), extremes, strict=True)
            if one is not None
        ]

    def _find_cohort(self, aim: _Aim, shown: Floats, *, towards: Floats | None = None) -> Floats | None:
        """One that gives the same shown counts, the one that has the least of `towards`; None where there is none."""
        seen = shown @ self._cohort
        found = milp(
            np.zeros(self._cohort.size) if towards is None else towards,
            integrality=np.ones(self._cohort.size),
            bounds=Bounds(0, np.inf),
            constraints=[LinearConstraint(shown, seen, seen), LinearConstraint(aim.count, aim.least, aim.most)],
            options={"node_limit": _MOST_NODES},
        )
        if not found.success:
            return None
        one = np.round(found.x)
        return one if np.array_equal(shown @ one, seen) and aim.is_reached_by(one) else None

    def _rows(self, counts: Iterable[Count]) -> Floats:
        """How much each kind of incident adds to each count."""
        rows = [[count(kind) for kind in self._kinds] for count in counts]
        return np.array(rows, dtype=float).reshape(-1, len(self._kinds))


def is_small(table: Floats | Ints, below: int) -> bool:
    """Whether a count of the table is; one of nobody has none."""
    return bool(table.any() and (table < below).any())


def _n_labelled(incident: Incident) -> int:
    return sum(label is not None for _, label in incident.narratives)


#: incidents and narratives with an answer, and those that have a label, too: shown whatever else is
COUNTS_OF_WORK: tuple[Count, ...] = (
    lambda one: 1,
    lambda one: len(one.narratives),
    _n_labelled,
    lambda one: min(1, _n_labelled(one)),
)


def kinds_of_incident(found: Iterable[Incident]) -> list[Incident]:
    """Every kind that a reader has to reckon with; fewer where labels of incidents follow from those of narratives."""
    states = [None, *product(_ANSWERS, _LABELS)]
    kinds = [Incident(cme, le, label) for cme, le, label in product(states, states, _LABELS) if cme or le]
    present = set(found)
    if all(one.is_labelled_like_its_narratives for one in present):
        kinds = [one for one in kinds if one.is_labelled_like_its_narratives]
    if not any(one.label for one in present):
        kinds = [one for one in kinds if one.label is None]
    return kinds
