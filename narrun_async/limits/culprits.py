"""Owns the record of narratives that took the endpoint down with them when nothing else was in flight."""

from __future__ import annotations

from narrun_async.models import NarrativeId

#: so many crashes, each with this narrative alone in flight, are no coincidence any more
CRASHES_THAT_CONVICT = 4


class Culprits:
    """Counts crashes by narrative over the passes of a run.

    A narrative is convicted once another one has been answered after the last of its crashes: an endpoint that goes
    down under everybody convicts nobody.
    """

    def __init__(self) -> None:
        #: crashes, and how many answers there had been at the last one
        self._crashes: dict[NarrativeId, tuple[int, int]] = {}
        self._n_answers = 0

    def record_answer(self) -> None:
        self._n_answers += 1

    def record_crash(self, narrative_id: NarrativeId) -> None:
        self._crashes[narrative_id] = (self.crashes_of(narrative_id) + 1, self._n_answers)

    def crashes_of(self, narrative_id: NarrativeId) -> int:
        return self._crashes.get(narrative_id, (0, 0))[0]

    def has_crashed_enough(self, narrative_id: NarrativeId) -> bool:
        """So often that an answer to another narrative convicts it."""
        return self.crashes_of(narrative_id) >= CRASHES_THAT_CONVICT

    def is_convicted(self, narrative_id: NarrativeId) -> bool:
        if not self.has_crashed_enough(narrative_id):
            return False
        _, n_answers = self._crashes[narrative_id]
        return self._n_answers > n_answers
