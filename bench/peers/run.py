"""Measures the public alternatives beside the program and its floor: `python -m bench.peers.run [names]`.

Every peer gets an environment of its own, made by pip from `requirements-*.txt` in a directory for temporary files and
kept there. A peer that cannot be installed or run is named with the reason; the others go on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.cells import Cell, Figures, as_record, measure_cell
from bench.contestants import FLOOR_CONTESTANTS, NARRUN, Contestant, run_once
from bench.endpoint import start_endpoint
from bench.machine import describe_machine
from bench.run import BASES, machine_line, table_lines
from bench.workload import RESULTS, ROOT, Workload, make_workload

HERE = Path(__file__).resolve().parent
VENVS = Path(tempfile.gettempdir()) / "narrun_async_peers"
CELL = Cell(n_narratives=2_000, latency_ms=50, concurrency=128, rounds=3)
#: what a peer should take at least, as a multiple of the program's CPU
EXPECTED = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer(Contestant):
    """A public library, doing the same work."""

    script: str
    #: of `requirements-….txt`, and of its environment
    package: str
    #: None until it is installed
    venv: Path | None = None

    def command(self, *, database: Path, config: Path, url: str, concurrency: int, limit: int) -> list[str]:
        assert self.venv is not None
        words = f"bench.peers.{self.script} --url {url} --concurrency {concurrency} --limit {limit}"
        return [str(self.venv / "bin" / "python"), "-m", *words.split(), "--db", str(database)]


PEERS = (
    Peer(name="openai + semaphore", script="openai_semaphore", package="openai"),
    Peer(name="langchain abatch", script="langchain_abatch", package="langchain"),
    # asks for the limits of the endpoint before it begins
    Peer(name="curator", script="curator_llm", package="curator", n_own_calls=1),
    Peer(name="inspect_ai", script="inspect_ai_eval", package="inspect_ai"),
)


class NotMeasuredError(Exception):
    """A peer cannot be installed or run; the message says why."""


def _install(peer: Peer, directory: Path) -> Peer:
    """:raises NotMeasuredError: pip says no"""
    requirements = HERE / f"requirements-{peer.package}.txt"
    venv = directory / peer.package
    installed = venv / ".installed"
    if not (installed.exists() and installed.read_text() == requirements.read_text()):
        _tell(f"installing {peer.package}")
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in ([sys.executable, "-m", "venv", "--clear", str(venv)], [*pip, "-r", str(requirements)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NotMeasuredError(f"not installed: {done.stderr.strip()[-300:]}")
        installed.write_text(requirements.read_text())
    return replace(peer, venv=venv)


def _try(peer: Peer, workload: Workload) -> None:
    """:raises NotMeasuredError: it fails, or does other work"""
    endpoint = start_endpoint(0)
    try:
        with tempfile.TemporaryDirectory() as name:
            run_once(peer, workload, endpoint=endpoint, concurrency=16, limit=50, directory=Path(name))
    except RuntimeError as error:
        raise NotMeasuredError(f"does not run: {str(error)[-600:]}") from None
    finally:
        endpoint.stop()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", help="peers, parts of their names suffice; default: all")
    arguments.add_argument("--venvs", type=Path, default=VENVS, help="where their environments are kept")
    arguments.add_argument("--rounds", type=int, default=CELL.rounds)
    given = arguments.parse_args()
    chosen = [peer for peer in PEERS if not given.names or any(name in peer.name for name in given.names)]
    workload, missing, ready = make_workload(CELL.n_narratives), [], []
    for peer in chosen:
        try:
            installed = _install(peer, given.venvs.resolve())
            _try(installed, workload)
            ready.append(installed)
        except NotMeasuredError as error:
            missing.append(f"{peer.name}: {error}")
            _tell(missing[-1])
    cell = replace(CELL, rounds=given.rounds)
    contestants = [NARRUN, FLOOR_CONTESTANTS[0], *ready]
    figures = measure_cell(cell, contestants, workload, bases=(NARRUN.name, BASES[0]), tell=_tell)
    machine = describe_machine()
    print(machine_line(machine))
    for line in table_lines([(cell, figures)], ratios_to=(NARRUN.name, BASES[0])):
        print(line)
    for line in [*_verdicts(figures, ready), *missing]:
        print(line)
    path = RESULTS / f"peers_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    record = {"machine": machine, "figures": [as_record(one) for one in figures], "not_measured": missing}
    path.write_text(json.dumps(record, indent=1) + "\n")
    _tell(f"written to {path.relative_to(ROOT)}")
    return 0


def _verdicts(figures: list[Figures], ready: list[Peer]) -> list[str]:
    names = {peer.name for peer in ready}
    cheap = [f"{one.contestant} ({one.cpu_ratios[0]} x)" for one in figures if one.contestant in names]
    within = [one.contestant for one in figures if one.contestant in names and (one.cpu_ratios[0] or 0.0) < EXPECTED]
    if within:
        return [f"NOT {EXPECTED:g} times the program's CPU: {', '.join(within)}"]
    return [f"every peer takes at least {EXPECTED:g} times the program's CPU: {', '.join(cheap)}"]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
