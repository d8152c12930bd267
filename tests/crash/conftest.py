"""What the crash tests share: a directory to work in, endpoints in their own processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Endpoint, Workplace, running_endpoint

StartEndpoint = Callable[..., Endpoint]


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(directory=tmp_path)


@pytest.fixture
def long_tier(is_long: bool) -> None:
    """For a test that takes long, and whose promise a shorter one looks after, too."""
    if not is_long:
        pytest.skip("in the long tier only (--long)")


@pytest.fixture
def start_endpoint(tmp_path: Path) -> Iterator[StartEndpoint]:
    """Starts endpoints with the flags of `narrun simulate`; they end with the test."""
    with ExitStack() as until_the_end:

        def start(*flags: str) -> Endpoint:
            return until_the_end.enter_context(running_endpoint(tmp_path / "endpoint", *flags))

        yield start
