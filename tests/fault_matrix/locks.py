"""Owns the rows L of the fault matrix."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

ROWS: tuple[FaultRow, ...] = (
    FaultRow(
        id="L01",
        fault="two runs start on one database at the same moment",
        injected="two processes are started at the same instant, 100 times each with --long; new runs and resumes",
        required="exactly one works each time; the other leaves with 75 and names its pid; nothing is paid twice",
    ),
    FaultRow(
        id="L02",
        fault="whatever else wants to write while a run works",
        injected=(
            "a new run, a resume, an ingest, a migration, the database under another name; and the file "
            "descriptors of the process"
        ),
        required="each is refused with 75; readers are not; one read-write connection to the file in all processes",
    ),
    FaultRow(
        id="L03",
        fault="a lock that was left behind",
        injected=(
            "SIGKILL of the holder; a note that names a living, foreign process; a lock file from before a "
            "restart of the machine"
        ),
        required="the next start works within 1 s, and nothing has to be removed by hand",
    ),
)
