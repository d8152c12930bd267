"""Owns the cohort as arrays: what became of each narrative and each incident, and what its label says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TypeAlias

import numpy as np

from narrun_async.analysis.evaluation_tree import Level, UnitCounts
from narrun_async.analysis.samples import Bools, Floats, Ints, Pairs, Sample
from narrun_async.models import CohortRow, NarrativeType

#: incident and type
NarrativeKey: TypeAlias = tuple[str, str]

UNLABELLED = -1


class State(IntEnum):
    """What became of a unit."""

    MISSING = 0
    SKIPPED = 1
    ERROR = 2
    ANSWERED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What people say of a unit."""

    is_positive: bool
    #: how many units of the cohort this one stands for: the inverse of its probability to have been drawn
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """Labels from one source. What is not in it is unlabelled."""

    #: in words, for people
    name: str
    narratives: Mapping[NarrativeKey, Label]
    incidents: Mapping[str, Label]
    #: narratives were drawn for labelling by the answers that are now judged by the labels
    is_drawn_by_answer: bool = False


#: by what a flag says; tens of thousands of narratives share them
_FLAGGED = (Label(is_positive=False), Label(is_positive=True))


def manual_flags(rows: Iterable[CohortRow], *, known: LabelSet | None = None) -> LabelSet:
    """The flags that came with the file: each narrative's own, and the case's for incidents.

    Where the narratives of an incident carry different case flags, one positive is enough.

    :param known: flags of other cohorts, to be kept
    """
    narratives = dict(known.narratives) if known else {}
    incidents = dict(known.incidents) if known else {}
    for row in rows:
        if row.manual_flag_ind is not None:
            narratives[row.incident_id, row.narrative_type] = _FLAGGED[row.manual_flag_ind == 1]
        if row.manual_flag is not None:
            before = incidents.get(row.incident_id)
            is_positive = row.manual_flag == 1 or (before is not None and before.is_positive)
            incidents[row.incident_id] = _FLAGGED[is_positive]
    return LabelSet(name="manual flags of the file", narratives=narratives, incidents=incidents)


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of one level, in parallel arrays."""

    level: Level
    state: Ints
    #: False where there is no answer
    detected: Bools
    #: an error leaves open what the answer would have been
    is_open: Bools
    #: 1, 0 or `UNLABELLED`
    label: Ints
    #: 1 where there is no label
    weight: Floats
    incident: Ints
    #: as `LabelSet` has it
    is_drawn_by_answer: bool = False

    @cached_property
    def is_answered(self) -> Bools:
        return np.equal(self.state, State.ANSWERED)

    @cached_property
    def is_evaluated(self) -> Bools:
        return self.is_answered & np.not_equal(self.label, UNLABELLED)

    def pairs(self, chosen: Bools) -> Pairs:
        """Answers and labels of the chosen units, which have both."""
        return Pairs(
            first=self.detected[chosen],
            second=self.label[chosen] == 1,
            weights=self.weight[chosen],
            clusters=self.incident[chosen],
            is_drawn_by_first=self.is_drawn_by_answer,
        )

    def answers(self, chosen: Bools) -> Sample:
        """The answers alone; labels and their weights play no part."""
        return Sample(
            hits=self.detected[chosen],
            weights=np.ones(int(chosen.sum())),
            clusters=self.incident[chosen],
        )

    def counts(self) -> UnitCounts:
        return UnitCounts(
            n_units=int(self.state.size),
            n_answered=int(self.is_answered.sum()),
            n_detected=int((self.detected & self.is_answered).sum()),
            n_errors=int((self.state == State.ERROR).sum()),
            n_skipped=int((self.state == State.SKIPPED).sum()),
            n_missing=int((self.state == State.MISSING).sum()),
            n_labelled=int((self.label != UNLABELLED).sum()),
            n_evaluated=int(self.is_evaluated.sum()),
            n_clusters=int(np.unique(self.incident[self.is_evaluated]).size),
        )


@dataclass(frozen=True, kw_only=True)
class CohortTable:
    """The narratives of a cohort in parallel arrays, in cohort order."""

    #: by number
    incident_ids: Sequence[str]
    incident: Ints
    kinds: Sequence[str]
    state: Ints
    detected: Bools
    label: Ints
    weight: Floats
    #: by incident
    case_label: Ints
    case_weight: Floats
    #: NaN where there is none
    confidence: Floats
    #: -1 where the text is gone
    chars: Ints
    #: None where the row is no error
    error_categories: Sequence[str | None]
    skip_reasons: Sequence[str | None]
    is_copied: Bools
    #: None for narratives that nobody looked at
    flags: Sequence[frozenset[str] | None]
    is_drawn_by_answer: bool

    @classmethod
    def build(cls, rows: Sequence[CohortRow], labels: LabelSet) -> CohortTable:
        numbers: dict[str, int] = {}
        states = [_state(row) for row in rows]
        detected = [one == _ANSWERED and row.detected == 1 for one, row in zip(states, rows, strict=True)]
        incident = [numbers.setdefault(row.incident_id, len(numbers)) for row in rows]
        found = [labels.narratives.get((row.incident_id, row.narrative_type)) for row in rows]
        cases = [labels.incidents.get(one) for one in numbers]
        return cls(
            incident_ids=tuple(numbers),
            incident=np.array(incident, dtype=np.int64),
            kinds=[row.narrative_type for row in rows],
            state=np.array(states, dtype=np.int64),
            detected=np.array(detected, dtype=bool),
            label=_label_values(found),
            weight=_label_weights(found),
            case_label=_label_values(cases),
            case_weight=_label_weights(cases),
            confidence=np.array([np.nan if row.confidence is None else row.confidence for row in rows], dtype=float),
            chars=np.array([-1 if row.text_chars is None else row.text_chars for row in rows], dtype=np.int64),
            error_categories=[row.error_category for row in rows],
            skip_reasons=[row.skip_reason for row in rows],
            is_copied=np.array([row.copied_from is not None for row in rows], dtype=bool),
            flags=[None if row.text_flags is None else _flags(row.text_flags) for row in rows],
            is_drawn_by_answer=labels.is_drawn_by_answer,
        )

    @cached_property
    def keys(self) -> Sequence[NarrativeKey]:
        """Incident and type of each narrative."""
        incidents = map(self.incident_ids.__getitem__, self.incident.tolist())
        return list(zip(incidents, self.kinds, strict=True))

    def is_kind(self, kind: str) -> Bools:
        return np.array([one == kind for one in self.kinds], dtype=bool)

    def narratives(self) -> Units:
        return self._narratives(Level.NARRATIVES, np.ones(self.state.size, dtype=bool))

    def of_kind(self, kind: NarrativeType) -> Units:
        level = Level.CME if kind is NarrativeType.CME else Level.LE
        return self._narratives(level, self.is_kind(kind))

    def _narratives(self, level: Level, chosen: Bools) -> Units:
        return Units(
            level=level,
            state=self.state[chosen],
            detected=self.detected[chosen],
            is_open=self.state[chosen] == State.ERROR,
            label=self.label[chosen],
            weight=self.weight[chosen],
            incident=self.incident[chosen],
            is_drawn_by_answer=self.is_drawn_by_answer,
        )

    def incidents(self) -> Units:
        """Detected if any answered narrative is; answered if any narrative is.

        Without an answer it is an error if any narrative is, else skipped if any is, else missing.
        """
        n_incidents = len(self.incident_ids)
        best = np.full(n_incidents, State.MISSING, dtype=np.int64)
        np.maximum.at(best, self.incident, self.state)
        detected = self._has(self.detected)
        return Units(
            level=Level.INCIDENTS,
            state=best,
            detected=detected,
            is_open=self._has(self.state == State.ERROR) & ~detected,
            label=self.case_label,
            weight=self.case_weight,
            incident=np.arange(n_incidents),
        )

    def incidents_with_both(self) -> Units:
        """Of the incidents, those whose CME and LE narratives both have an answer."""
        everyone = self.incidents()
        chosen = self.has_both
        return Units(
            level=Level.INCIDENTS_WITH_BOTH,
            state=everyone.state[chosen],
            detected=everyone.detected[chosen],
            is_open=everyone.is_open[chosen],
            label=everyone.label[chosen],
            weight=everyone.weight[chosen],
            incident=everyone.incident[chosen],
        )

    @cached_property
    def has_both(self) -> Bools:
        """By incident: both its narratives have an answer."""
        answered = self.state == State.ANSWERED
        both: Bools = np.logical_and.reduce([self._has(answered & self.is_kind(kind)) for kind in NarrativeType])
        return both

    def cme_and_le(self) -> Pairs:
        """The answers about both narratives of each incident that has both."""
        answered = self.state == State.ANSWERED
        cme, le = (self._has(self.detected & answered & self.is_kind(kind)) for kind in NarrativeType)
        n_pairs = int(self.has_both.sum())
        return Pairs(
            first=cme[self.has_both],
            second=le[self.has_both],
            weights=np.ones(n_pairs),
            clusters=np.arange(n_pairs),
        )

    def _has(self, chosen: Bools) -> Bools:
        """By incident: one of its narratives is among the chosen."""
        return np.bincount(self.incident[chosen], minlength=len(self.incident_ids)) > 0


#: plain numbers: a look-up in the enumeration costs half a microsecond, and there are four for each narrative
_MISSING, _SKIPPED, _ERROR, _ANSWERED = map(int, State)


def _state(row: CohortRow) -> int:
    if not row.has_result:
        return _MISSING
    if row.skip_reason is not None:
        return _SKIPPED
    return _ANSWERED if row.error_category is None else _ERROR


def _label_values(labels: Sequence[Label | None]) -> Ints:
    return np.array([UNLABELLED if one is None else int(one.is_positive) for one in labels], dtype=np.int64)


def _label_weights(labels: Sequence[Label | None]) -> Floats:
    return np.array([1.0 if one is None else one.weight for one in labels], dtype=float)


def _flags(text: str) -> frozenset[str]:
    return frozenset(filter(None, text.split(",")))
