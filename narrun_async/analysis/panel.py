"""Owns the cases that several experiments have all answered, as arrays: one row an experiment, one column a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from narrun_async.analysis.cohort import UNLABELLED, CohortTable, LabelSet, NarrativeKey, State
from narrun_async.analysis.comparison_tree import DiscordantCase, FallOut
from narrun_async.analysis.evaluation_tree import Level
from narrun_async.analysis.samples import Bools, Floats, Ints, Pairs


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The common cases of one level."""

    level: Level
    #: experiments × cases
    answers: Bools
    #: 1, 0 or `UNLABELLED`
    label: Ints
    weight: Floats
    incident: Ints

    @cached_property
    def is_labelled(self) -> Bools:
        return np.not_equal(self.label, UNLABELLED)

    def against_labels(self, number: int) -> Pairs:
        """The answers of one experiment and the labels."""
        chosen = self.is_labelled
        return Pairs(
            first=self.answers[number, chosen],
            second=self.label[chosen] == 1,
            weights=self.weight[chosen],
            clusters=self.incident[chosen],
        )

    def against_each_other(self, first: int, second: int) -> Pairs:
        """The answers of two experiments, labelled or not."""
        return Pairs(
            first=self.answers[first],
            second=self.answers[second],
            weights=np.ones(self.label.size),
            clusters=self.incident,
        )


@dataclass(frozen=True, kw_only=True)
class CommonCases:
    """Narratives that all experiments have answered."""

    #: in the order of the first experiment's cohort
    keys: Sequence[NarrativeKey]
    narratives: Panel
    n_narratives: int
    fall_outs: tuple[FallOut, ...]
    labels: LabelSet

    def incidents(self) -> Panel:
        """Any-positive over the common narratives, so that all experiments judge by the same ones."""
        ids = list(dict.fromkeys(incident_id for incident_id, _ in self.keys))
        answers = np.zeros((len(self.narratives.answers), len(ids)), dtype=bool)
        for row, one in zip(answers, self.narratives.answers, strict=True):
            row[:] = np.bincount(self.narratives.incident[one], minlength=len(ids)) > 0
        found = [self.labels.incidents.get(one) for one in ids]
        return Panel(
            level=Level.INCIDENTS,
            answers=answers,
            label=np.array([UNLABELLED if one is None else int(one.is_positive) for one in found], dtype=np.int64),
            weight=np.array([1.0 if one is None else one.weight for one in found]),
            incident=np.arange(len(ids)),
        )

    def discordant(self) -> Sequence[DiscordantCase]:
        """Narratives on which not all say the same, labelled ones first."""
        panel = self.narratives
        differs = panel.answers.any(axis=0) & ~panel.answers.all(axis=0)
        order = np.concatenate(
            [np.flatnonzero(differs & panel.is_labelled), np.flatnonzero(differs & ~panel.is_labelled)]
        )
        return [
            DiscordantCase(
                incident_id=self.keys[number][0],
                narrative_type=self.keys[number][1],
                label=bool(panel.label[number]) if panel.is_labelled[number] else None,
                answers=tuple(panel.answers[:, number].tolist()),
            )
            for number in order.tolist()
        ]


def find_common_cases(tables: Sequence[CohortTable], labels: LabelSet, experiment_ids: Sequence[str]) -> CommonCases:
    """Match the narratives of several cohorts by incident and type."""
    places = [{key: number for number, key in enumerate(table.keys)} for table in tables]
    everyone = dict.fromkeys(key for one in places for key in one)
    answered = [
        {key for key, is_answered in zip(table.keys, table.state == State.ANSWERED, strict=True) if is_answered}
        for table in tables
    ]
    keys = [key for key in everyone if all(key in one for one in answered)]
    answers = np.zeros((len(tables), len(keys)), dtype=bool)
    for row, where, table in zip(answers, places, tables, strict=True):
        row[:] = table.detected[[where[key] for key in keys]]
    numbers: dict[str, int] = {}
    found = [labels.narratives.get(key) for key in keys]
    panel = Panel(
        level=Level.NARRATIVES,
        answers=answers,
        label=np.array([UNLABELLED if one is None else int(one.is_positive) for one in found], dtype=np.int64),
        weight=np.array([1.0 if one is None else one.weight for one in found]),
        incident=np.array([numbers.setdefault(incident_id, len(numbers)) for incident_id, _ in keys], dtype=np.int64),
    )
    fall_outs = [_fall_out(table, len(everyone), one) for table, one in zip(tables, experiment_ids, strict=True)]
    return CommonCases(
        keys=keys, narratives=panel, n_narratives=len(everyone), fall_outs=tuple(fall_outs), labels=labels
    )


def _fall_out(table: CohortTable, n_narratives: int, experiment_id: str) -> FallOut:
    counts = np.bincount(table.state, minlength=len(State))
    return FallOut(
        experiment_id=experiment_id,
        not_in_cohort=n_narratives - int(table.state.size),
        no_row_yet=int(counts[State.MISSING]),
        skipped=int(counts[State.SKIPPED]),
        errors=int(counts[State.ERROR]),
        answered=int(counts[State.ANSWERED]),
    )
