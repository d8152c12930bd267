"""What things are called by: identifiers, and the two kinds of narrative."""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

ExperimentId = NewType("ExperimentId", str)
RunId = NewType("RunId", int)
NarrativeId = NewType("NarrativeId", int)
BatchId = NewType("BatchId", int)


class NarrativeType(StrEnum):
    """Who wrote the narrative: coroner or medical examiner, or law enforcement."""

    CME = "cme"
    LE = "le"
