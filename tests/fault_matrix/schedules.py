"""Owns the rows of the fault matrix that virtual time makes possible: every step, every order, a month."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

ROWS: tuple[FaultRow, ...] = (
    FaultRow(
        id="P03",
        fault="The process dies at any step of its event loop",
        injected="the real stages run on a seeded loop in virtual time that stops dead before step 1, 2, 3 and so on "
        "to the last; then the run is resumed",
        required="at 100 % of the steps the results equal those of an undisturbed run; no saved row changes, none is "
        "called again; no more answers are bought twice than C + Q + B",
    ),
    FaultRow(
        id="P04",
        fault="Events come in any order",
        injected="a seed decides the order of everything that is ready at the same time, how long answers and the disk "
        "take, which calls fail, when the process is killed, stopped or out of disk",
        required="each schedule ends with the results of an undisturbed run; the seed is printed when one does not",
    ),
    FaultRow(
        id="T02",
        fault="A run of a month; numbers beyond 2³²",
        injected="30 days of virtual time with outages and overloads; clock, row numbers and token counts begin at 2³²",
        required="counters equal the rows, the runtime is the time that passed, memory and timers stay flat; "
        "30 days in less than a minute",
    ),
)
