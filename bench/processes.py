"""Runs one contestant as a whole process and measures it from outside, by wait4 and by samples."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.endpoint import EndpointProcess

SAMPLE_EVERY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The process at one moment."""

    #: completions that the endpoint was asked for by then
    n_served: int
    rss_kib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process from start to end."""

    #: user and system time of all its threads
    cpu_s: float
    wall_s: float
    #: never below what the starting process has at the moment: the kernel passes its peak on to the child
    peak_rss_kib: int
    endpoint_cpu_s: float
    n_served: int
    #: empty where nobody asked for them
    samples: tuple[Sample, ...] = ()


def live(
    command: Sequence[str],
    *,
    endpoint: EndpointProcess,
    directory: Path,
    checkout: Path,
    sampled: bool = False,
) -> Life:
    """Run it to its end.

    :param directory: for what it prints
    :param checkout: where it is started, and so which version of the program it is
    :param sampled: look at memory and progress four times a second, for a few per mille of a core
    :raises RuntimeError: it failed; the end of what it printed is in the message
    """
    output = directory / "output.txt"
    served_before, endpoint_before_s = endpoint.n_served(), endpoint.cpu_s()
    samples: list[Sample] = []
    started = time.monotonic()
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=checkout)
    status = Path(f"/proc/{process.pid}/status")
    options = os.WNOHANG if sampled else 0
    while True:
        pid, wait_status, usage = os.wait4(process.pid, options)
        if pid:
            break
        rss_kib = _status_kib(status.read_text(), "VmRSS")
        if rss_kib is not None:
            samples.append(Sample(n_served=endpoint.n_served() - served_before, rss_kib=rss_kib))
        time.sleep(SAMPLE_EVERY_S)
    wall_s = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(wait_status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {output.read_text(errors='replace')[-2000:]}")
    return Life(
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=wall_s,
        peak_rss_kib=usage.ru_maxrss,
        endpoint_cpu_s=endpoint.cpu_s() - endpoint_before_s,
        n_served=endpoint.n_served() - served_before,
        samples=tuple(samples),
    )


def _status_kib(status: str, key: str) -> int | None:
    """None when the process has ended and waits to be collected."""
    for line in status.splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return None
