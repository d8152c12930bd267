"""What the crash tests share: a directory to work in, endpoints in their own processes, and the option `--long`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Endpoint, Workplace, running_endpoint

StartEndpoint = Callable[..., Endpoint]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", default=False, help="also what takes minutes: more kills, outages")


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    """`--long` was given; it is unknown where pytest was started for other directories, too."""
    return bool(pytestconfig.getoption("--long", default=False))


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(directory=tmp_path)


@pytest.fixture
def start_endpoint(tmp_path: Path) -> Iterator[StartEndpoint]:
    """Starts endpoints with the flags of `narrun simulate`; they end with the test."""
    with ExitStack() as until_the_end:

        def start(*flags: str) -> Endpoint:
            return until_the_end.enter_context(running_endpoint(tmp_path / "endpoint", *flags))

        yield start
