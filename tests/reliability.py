"""Owns how tests say which fault they bring about, and the table `docs/reliability.md` that a run of them writes.

A pytest plugin. A test marked `@pytest.mark.fault("D01")` covers that row of the matrix; what it measured it says
through the fixture `measured`. With `--reliability` the outcomes are merged into `docs/reliability.json` (so that a
part of the suite may be run alone), and the table is drawn from it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from fault_matrix import FAULT_IDS, FAULTS, FaultRow

REPOSITORY = Path(__file__).resolve().parents[1]
RECORD = REPOSITORY / "docs" / "reliability.json"
TABLE = REPOSITORY / "docs" / "reliability.md"

#: of one fault: test id → outcome, figures, day
Outcomes = dict[str, dict[str, Any]]

_FIGURES = pytest.StashKey[dict[str, list[str]]]()
_PREFACE = """\
# What this program stands

Written by `make reliability` (the long tier of the tests, with `--reliability`): one row a fault, how it is brought
about, what is required, and what the tests measured when they last ran. A test named here passed on the day beside it
unless the row says otherwise. "Not covered" says why.
"""


class Measured(Protocol):
    def __call__(self, figure: str, *, fault: str | None = None) -> None: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", default=False, help="also what takes minutes: campaigns, outages")
    parser.addoption("--schedules", type=int, default=0, help="so many seeded schedules in virtual time")
    parser.addoption("--soak", type=float, default=0, metavar="MINUTES", help="kill campaigns for so long")
    parser.addoption("--first-seed", type=int, default=0, help="the first of those seeds")
    parser.addoption("--reliability", action="store_true", default=False, help="write docs/reliability.md")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(*ids): brings about these rows of the fault matrix")
    config.addinivalue_line("markers", "long: left out of the quick tier, run with --long")
    if config.getoption("--reliability"):
        config.pluginmanager.register(_Recorder(), "reliability-recorder")


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Without `--long`, what is marked `long` is left out; a mark must name rows that exist."""
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes long; `make test-crash` runs it"))
        unknown = [fault for fault in _faults_of(item) if fault not in FAULT_IDS]
        if unknown:
            raise pytest.UsageError(f"{item.nodeid} names faults that the matrix does not have: {', '.join(unknown)}")


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    """`--long` was given."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture
def soak_minutes(pytestconfig: pytest.Config) -> float:
    """Of `--soak`; without it the test is left out."""
    minutes = float(pytestconfig.getoption("--soak"))
    if not minutes:
        pytest.skip("takes as long as `--soak` says; `make soak` takes an hour")
    return minutes


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Says what a test found, for the fault that it is marked with (named, where it is marked with several)."""
    faults = _faults_of(request.node)

    def say(figure: str, *, fault: str | None = None) -> None:
        assert faults, "a test that measures names its fault: @pytest.mark.fault(...)"
        assert fault is None or fault in faults, f"this test is not marked with {fault}"
        for one in faults if fault is None else [fault]:
            request.node.stash.setdefault(_FIGURES, {}).setdefault(one, []).append(figure)
        print(f"{fault or ', '.join(faults)}: {figure}")

    return say


def _faults_of(item: pytest.Item) -> list[str]:
    return [fault for mark in item.iter_markers("fault") for fault in mark.args]


class _Recorder:
    """Collects the outcomes of marked tests and writes both files at the end."""

    def __init__(self) -> None:
        self._seen: dict[str, Outcomes] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report: pytest.TestReport = yield  # type: ignore[assignment]  # the wrapped hook's result
        if report.when == "call" or report.outcome != "passed":
            figures = item.stash.get(_FIGURES, {})
            for fault in _faults_of(item):
                self._seen.setdefault(fault, {})[item.nodeid] = {
                    "outcome": report.outcome,
                    "figures": figures.get(fault, []),
                    "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
                    "long": bool(item.config.getoption("--long")),
                }
        return report  # type: ignore[return-value]

    def pytest_sessionfinish(self) -> None:
        record = merge(load_record(), self._seen)
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        TABLE.write_text(draw_table(FAULTS, record), encoding="utf-8")


def load_record() -> dict[str, Outcomes]:
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def merge(before: dict[str, Outcomes], now: dict[str, Outcomes]) -> dict[str, Outcomes]:
    """What was seen last of each test, without tests that are gone."""
    merged = {fault: dict(outcomes) for fault, outcomes in before.items()}
    for fault, outcomes in now.items():
        merged.setdefault(fault, {}).update(outcomes)
    return {
        fault: kept
        for fault, outcomes in merged.items()
        if (kept := {test: seen for test, seen in outcomes.items() if _exists(test)})
    }


def _exists(test: str) -> bool:
    file, _, name = test.partition("::")
    path = REPOSITORY / file
    return path.exists() and name.split("[")[0].split("::")[-1] in path.read_text(encoding="utf-8")


def draw_table(rows: Sequence[FaultRow], record: dict[str, Outcomes]) -> str:
    lines = [_PREFACE, "| id | fault | injected | required | measured |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.id, row.fault, row.injected, row.required, _measured_cell(row, record.get(row.id, {})))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _measured_cell(row: FaultRow, outcomes: Outcomes) -> str:
    if not outcomes:
        return f"**not covered**: {row.not_covered}" if row.not_covered else "**not run**"
    return "<br>".join([*_figures(outcomes), *_troubles(outcomes), _tests(outcomes)])


def _figures(outcomes: Outcomes) -> list[str]:
    return list(dict.fromkeys(figure for seen in outcomes.values() for figure in seen["figures"]))


def _troubles(outcomes: Outcomes) -> list[str]:
    return [
        f"**{seen['outcome']}**: `{test}`" for test, seen in sorted(outcomes.items()) if seen["outcome"] != "passed"
    ]


def _tests(outcomes: Outcomes) -> str:
    """How many tests passed, in which files, and when the oldest of them last ran."""
    passed = {test: seen for test, seen in outcomes.items() if seen["outcome"] == "passed"}
    files = ", ".join(sorted({f"`{test.partition('::')[0].removeprefix('tests/')}`" for test in outcomes}))
    oldest = min(seen["day"] for seen in outcomes.values())
    return f"{len(passed)} passed, {oldest}: {files}"
