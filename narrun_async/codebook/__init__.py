"""What every stored column means, in words: one description for exports, their codebook, and browsing. Pure.

`RESULT_COLUMNS` describes the results of an experiment, column by column, as far as a statistics package wants to know.
`BROWSED_COLUMNS` says of every table what a reader may meet when browsing; what it does not describe is not shown.
"""

from narrun_async.codebook.columns import Column, Kind
from narrun_async.codebook.questions import QUESTIONS, Question
from narrun_async.codebook.results import (
    OUR_COLUMNS,
    PROMPT_COLUMNS,
    R_COLUMNS,
    RESULT_COLUMNS,
    TEXT_COLUMNS,
    chosen_columns,
)
from narrun_async.codebook.tables import BROWSED_COLUMNS

__all__ = [
    "BROWSED_COLUMNS",
    "OUR_COLUMNS",
    "PROMPT_COLUMNS",
    "QUESTIONS",
    "RESULT_COLUMNS",
    "R_COLUMNS",
    "TEXT_COLUMNS",
    "Column",
    "Kind",
    "Question",
    "chosen_columns",
]
