"""Owns the rows P, T of the fault matrix."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

ROWS: tuple[FaultRow, ...] = (
    FaultRow(
        id="P01",
        fault="a run is killed at random moments, again and again",
        injected=(
            "SIGKILL from outside, a third of it while starting; five ways to run; the endpoint counts its calls"
        ),
        required=(
            "0 rows lost, 0 doubled, 0 changed; at most 2C + queue + batch calls repeated a kill, C + half a "
            "batch on average; in the end the results of an undisturbed run"
        ),
    ),
    FaultRow(
        id="P02",
        fault="a kill at exactly the wrong place: start, ingest, migration, batch, end of the run, export",
        injected=(
            "a fork of the program sends itself SIGKILL at a named boundary of a function or a statement; "
            "strace sends it at the Nth system call"
        ),
        required=(
            "after every one: the invariants hold, what was reported as saved is there, the lock is free "
            "within 1 s, the next start ends in the same rows"
        ),
    ),
    FaultRow(
        id="P05",
        fault="a person or the system asks a run to stop",
        injected="SIGINT, SIGTERM, also while it waits for a sick endpoint or a probe that hangs",
        required="every answer in flight is stored, no call is paid twice, exit 130 or 143 with the command to go on",
    ),
    FaultRow(
        id="P06",
        fault="somebody insists",
        injected="SIGINT or SIGTERM twice while the endpoint takes a minute for an answer",
        required="the process is gone within 1 s; what the endpoint had answered is stored",
    ),
    FaultRow(
        id="P07",
        fault="nobody looks any more",
        injected="SIGHUP, a terminal that is closed, `| head -1`, closed and full standard streams",
        required="the run goes on to its end; its logs are whole",
    ),
    FaultRow(
        id="P08",
        fault="the process stands still for longer than a call may take, then goes on",
        injected=(
            "SIGSTOP and SIGCONT with every call's deadline passed meanwhile, at a fixed concurrency and at `auto`"
        ),
        required="one episode: 0 error rows, every narrative ends as a success; `auto` is back at 90 % of its limit",
    ),
    FaultRow(
        id="P09",
        fault="a long run",
        injected="resident memory is read from /proc all along",
        required="at most 150 MB + 8 MiB a call in flight, flat within 10 % after the first fifth",
    ),
    FaultRow(
        id="P10",
        fault="a child process could inherit the lock and outlive the run",
        injected="strace lists every process that a run makes; the run is killed",
        required="none after the lock is taken; the lock is free within 1 s",
    ),
    FaultRow(
        id="P11",
        fault="a task meets an error that nobody foresaw",
        injected="a provider and a limiter with a programming error, for one narrative among many",
        required="that narrative alone becomes an error row `internal`; all others end as they would",
    ),
    FaultRow(
        id="P12",
        fault="few file descriptors",
        injected="RLIMIT_NOFILE, soft and hard, at 32; at 20; soft only",
        required=(
            "the soft limit is raised where that is allowed; else fewer calls at a time and a sentence; where "
            "not even one fits, exit 78 and nothing written; 0 error rows"
        ),
    ),
    FaultRow(
        id="T01",
        fault="the clock is set back, or summer time ends",
        injected="the wall clock of a running program is set back an hour; a time zone in the hour that comes twice",
        required="durations stay right, no run ends before it began, the results are those of any other run",
    ),
)
