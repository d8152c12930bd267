"""Owns the rows D of the fault matrix."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

ROWS: tuple[FaultRow, ...] = (
    FaultRow(
        id="D01",
        fault="the disk is full",
        injected="a small tmpfs in a user namespace is filled while the run works; freed later, or never",
        required="no answers are bought that cannot be kept: at most C calls after it was noticed; the batch is tried "
        "again in new transactions and goes on when there is room, else exit 74; 0 committed rows lost",
    ),
    FaultRow(
        id="D02",
        fault="the size of files is limited, or the quota is spent",
        injected="RLIMIT_FSIZE is lowered under the run, and lifted again; strace lets writes fail with EDQUOT",
        required="as a full disk, although SQLite calls it a failed write",
    ),
    FaultRow(
        id="D03",
        fault="one write finds no room, the next one does",
        injected="strace: the Nth pwrite64 on the database or its -wal fails with ENOSPC, N up to 200",
        required="the run goes on by itself, or stops before or after all calls; 0 rows lost, 0 calls repeated",
    ),
    FaultRow(
        id="D04",
        fault="the disk fails while reading, writing or syncing",
        injected="strace: the Nth pwrite64, fdatasync, fsync or pread64 fails with EIO, N swept",
        required="exit 74, or no harm at all (a checkpoint that is done again); nothing is written or synced through "
        "that connection afterwards; the next start is clean; 0 committed rows lost",
    ),
    FaultRow(
        id="D05",
        fault="the power fails",
        injected="every write and sync of a real run is recorded with strace; at any point of it, writes that no sync "
        "followed are dropped, torn in sectors and reordered, and the file is opened again",
        required="0 of 1,000 cuts lose a row that was called saved or leave an unsound file; with the syncs left out "
        "(what synchronous=OFF would do) more than half of them do",
    ),
    FaultRow(
        id="D06",
        fault="the disk is slow",
        injected="strace: every fdatasync on the database takes 0.2 s longer",
        required="the event loop is not held up (p99 of its lag below 50 ms); answers that wait for the disk stay "
        "within 2C + Q + B",
    ),
    FaultRow(
        id="D07",
        fault="another program locks the database",
        injected="BEGIN EXCLUSIVE from outside, for 5 s and for 60 s, and beyond the busy timeout",
        required="the run waits and goes on; no error rows, no calls repeated",
    ),
    FaultRow(
        id="D08",
        fault="another program reads an old state of the database for hours",
        injected="a read transaction stays open while the run works; the threshold of the warning is lowered",
        required="the run is not held up; the -wal file grows, and beyond 256 MB there is a warning",
    ),
    FaultRow(
        id="D09",
        fault="the database is deleted, moved or replaced under the run",
        injected="unlink, rename, and a copy renamed over it",
        required="noticed at the next commit, exit 74; at most C + Q + B calls after it",
    ),
    FaultRow(
        id="D10",
        fault="the -wal file is removed, or the database is put back from an older copy",
        injected="unlink after SIGKILL; a copy taken earlier put in place",
        required="resume is refused (74), because the journal in the log directory knows of more results; "
        "--accept-restored goes on; a journal that is missing or unreadable blocks nothing",
    ),
    FaultRow(
        id="D11",
        fault="the file is damaged: a page, the header, the end",
        injected="bytes overwritten at many offsets, files cut short",
        required="refused, or the damage is in a text, which its hash tells; never written to",
    ),
    FaultRow(
        id="D12",
        fault="a bit of a narrative flips",
        injected="one byte of a stored text is changed in the file",
        required="the narrative is not sent; its row is the error `source_changed`",
    ),
    FaultRow(
        id="D13",
        fault="the file or its directory is read-only",
        injected="modes 0400 and 0500, and a process without the right to override them",
        required="exit 74 within a second of the start, naming the path; nothing changed",
    ),
    FaultRow(
        id="D14",
        fault="a file of the predecessor holds a narrative twice",
        injected="a file of that shape with duplicate results; SIGKILL at every step of opening and taking it up",
        required="after a backup one result of each stays, the others are kept whole, and it is said how many; with "
        "--no-dedupe refused and not a byte changed; a kill leaves the old state or the new one",
    ),
    FaultRow(
        id="D15",
        fault="the file is of a newer version, of another program, empty, or no database",
        injected="one file of each kind",
        required="refused, byte for byte as it was",
    ),
    FaultRow(
        id="D16",
        fault="backups are taken while the run works",
        injected="VACUUM INTO in a loop from another process",
        required="every copy is sound and consistent; the run is not disturbed",
    ),
    FaultRow(
        id="D17",
        fault="the disk with the log files is full",
        injected="the log directory lies on a full tmpfs; log files that are /dev/full",
        required="the run completes; one warning on standard error",
    ),
    FaultRow(
        id="D18",
        fault="the database lies on a network file system",
        injected="a made-up table of mounts in place of the kernel's, in a mount namespace",
        required="commands that write refuse (74) and say where to keep it; doctor says so, too",
    ),
)
