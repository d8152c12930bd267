"""Owns the tables of `bench.auto_sockets`: how a row reads, and putting it into bench/README.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.auto_servers import AUTO, SHOWN, Server

README = Path(__file__).with_name("README.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What one run showed."""

    concurrency: int | str
    n_rows: int
    n_error_rows: int
    #: first call to last answer, or to the stop of a run of a given time; outage excluded
    span_s: float
    #: of all calls, in per cent
    refused_pct: float
    #: the longest pause between two answers
    longest_silence_s: float
    ends_at: int | None

    @property
    def rate_per_s(self) -> float:
        return self.n_rows / self.span_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One of the tables, found again in the file by its marks."""

    name: str
    columns: tuple[str, ...]

    @property
    def head(self) -> str:
        return f"{_line(self.columns)}\n{'|---' * len(self.columns)}|"

    def put(self, row: Sequence[str], path: Path = README) -> None:
        """Replace the row that begins with the same cell, or append it.

        :raises ValueError: the file has no such table
        """
        text = path.read_text()
        begin, end = f"<!-- auto {self.name} -->\n", f"<!-- end of auto {self.name} -->"
        before, begun, rest = text.partition(begin)
        table, ended, after = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"{path.name} has no table between {begin.strip()!r} and {end!r}")
        rows = [line for line in table.splitlines()[2:] if line]
        names = [line.split("|")[1].strip() for line in rows]
        if row[0] in names:
            rows[names.index(row[0])] = _line(row)
        else:
            rows.append(_line(row))
        path.write_text("".join([before, begin, "\n".join([self.head, *rows]), "\n", end, after]))


_COMPARED = ("`auto`", *(f"fixed {level}" for level in SHOWN))
QUEUEING_TABLE = Table(
    name="queueing",
    columns=("server", "narratives", "best fixed", "`auto`", "ends at", *_COMPARED[1:], "error rows", "commit"),
)
REFUSING_TABLE = Table(name="refusing", columns=("server", "minutes", *_COMPARED, "error rows", "commit"))
FAILING_TABLE = Table(name="failing", columns=("server", "narratives", "down for", *_COMPARED, "error rows", "commit"))


def queueing_row(server: Server, runs: Sequence[Reached], commit: str) -> list[str]:
    """Shares of the best fixed number; the others than `SHOWN` worked on fewer narratives."""
    fixed = [one for one in runs if one.concurrency != AUTO]
    best = max(fixed, key=lambda one: one.rate_per_s)
    auto, *others = [f"{one.rate_per_s / best.rate_per_s:.2f}" for one in shown(runs)]
    ends_at = shown(runs)[0].ends_at
    of_best = f"{best.concurrency} ({best.rate_per_s:.0f} a second)"
    words = (server.name, f"{server.n_narratives:,}", of_best, f"**{auto}**", str(ends_at), *others)
    return [*words, _errors(runs), commit]


def refusing_row(server: Server, runs: Sequence[Reached], commit: str) -> list[str]:
    """Used share of the permitted rate, and which share of the calls was refused."""
    assert server.permitted_per_s is not None
    cells = [f"{one.rate_per_s / server.permitted_per_s:.3f}, {one.refused_pct:.2f} % refused" for one in shown(runs)]
    return [server.name, f"{server.minutes:g}", f"**{cells[0]}**", *cells[1:], _errors(runs), commit]


def failing_row(server: Server, runs: Sequence[Reached], commit: str) -> list[str]:
    """Narratives a second without the outage, and the longest pause between two answers."""
    cells = [f"{one.rate_per_s:.0f} a second, silent for {one.longest_silence_s:.1f} s" for one in shown(runs)]
    words = (server.name, f"{server.n_narratives:,}", f"{server.outage_s:g} s", f"**{cells[0]}**", *cells[1:])
    return [*words, _errors(runs), commit]


def shown(runs: Sequence[Reached]) -> list[Reached]:
    """`auto` and the fixed numbers beside it, in the order of the columns."""
    by_kind = {one.concurrency: one for one in runs}
    return [by_kind[kind] for kind in (AUTO, *SHOWN)]


def _errors(runs: Sequence[Reached]) -> str:
    """The sum, and in brackets those of `auto` if there are any at all."""
    n_all = sum(one.n_error_rows for one in runs)
    return "0" if not n_all else f"{n_all} (`auto`: {shown(runs)[0].n_error_rows})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
