"""Owns the rows S of the fault matrix."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

ROWS: tuple[FaultRow, ...] = (
    FaultRow(
        id="S01",
        fault="the API key could be written down somewhere",
        injected="a key canary; an endpoint that repeats it in every field of its answers; runs that succeed, are"
        " refused in six ways, fill the disk; all files, streams and the command line are searched",
        required="found nowhere, not even in the database",
    ),
    FaultRow(
        id="S02",
        fault="a narrative or a prompt could leave the database",
        injected="canaries in both, the same endpoint, log level debug, a raised exception that holds the text",
        required="only in the workbook, the database and exports `--with-text`; never in logs, streams, tracebacks",
    ),
    FaultRow(
        id="S03",
        fault="files that others may read",
        injected="umask 000; ingest, run, kill, resume, migration, backup, export, scrub, purge; all files looked at",
        required="files 0600, directories 0700",
    ),
    FaultRow(
        id="S04",
        fault="a narrative or an answer that a spreadsheet takes for a formula",
        injected="twelve payloads in every text column, exported as xlsx and as `--excel-safe` csv",
        required="no formula in the workbook, no cell of the csv begins as one, each text comes back equal",
    ),
    FaultRow(
        id="S05",
        fault="an endpoint URL that leads away from this machine",
        injected="literals in decimal, octal, hexadecimal and IPv4-mapped form; names that resolve elsewhere; a"
        " resolver that changes its mind; the system calls of a run under strace",
        required="refused before a socket is connected; 0 packets to another address",
    ),
    FaultRow(
        id="S07",
        fault="HTML in a narrative, an answer or a name",
        injected="`<script>` as experiment name, rationale, indicator; through the terminal, logs, csv, json, xlsx, the"
        " HTML report and the pages of `browse`",
        required="never markup: plain text in each of them",
    ),
    FaultRow(
        id="S08",
        fault="an experiment id that is a path, SQL, or 10 kB long",
        injected="nine such ids to every command that takes one",
        required="exit 2, one short sentence, no file touched",
    ),
    FaultRow(
        id="S09",
        fault="a narrative that gives the model orders",
        injected="twenty made-up narratives against an endpoint that obeys: objects, two differing objects, prose,"
        " fences, orders to reveal the key or the prompt",
        required="the key unchanged, two differing answers are `ambiguous`, no crash, every other narrative as without",
    ),
    FaultRow(
        id="S10",
        fault="a dependency that runs code by being installed, or is another than the one that was pinned",
        injected="both lock files; every `.pth` of the environment; pip with one hash changed, without a network",
        required="every requirement has hashes and no index host; no distribution that is locked ships a `.pth` that"
        " runs code; a wrong hash is refused (known vulnerabilities are not looked up: that needs a network)",
    ),
)
