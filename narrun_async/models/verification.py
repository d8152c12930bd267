"""What verifying a database brings to light."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InvariantFinding:
    """What looking for violations of one invariant brought to light; places are ids and keys, never texts."""

    #: such as `I5`
    invariant_id: str
    #: the promise
    sentence: str
    n_violations: int
    #: where, of a few of them
    examples: tuple[str, ...]
    #: violations in rows of the predecessor, which promised less
    n_inherited: int
    inherited_examples: tuple[str, ...]
    #: why not everything could be looked at; None where it was
    obstacle: str | None
    #: what could not be looked at and need not be, such as texts that were scrubbed
    remark: str | None = None

    @property
    def holds(self) -> bool:
        return not self.n_violations and self.obstacle is None
