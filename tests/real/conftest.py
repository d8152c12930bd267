"""A tiny model, servers for it, and a directory to run the program in. `make test-real` runs what is here.

Plain `make test` leaves this directory out (`collect_ignore` in tests/conftest.py): the server is a hundred megabytes
that only these tests need.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorway import Doorway, open_doorway
from harness import Workplace

if missing := [name for name in ("xllamacpp", "gguf") if importlib.util.find_spec(name) is None]:
    # Skipping would look like passing.
    raise pytest.UsageError(f"tests/real needs {' and '.join(missing)}; `make test-real` installs what it needs")

from serving import LlamaServer
from tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(scope="session")
def doorway() -> Iterator[Doorway]:
    with open_doorway() as opened:
        yield opened


@pytest.fixture
def workplace(tmp_path: Path, doorway: Doorway) -> Iterator[Workplace]:
    """A directory to run the program in; whatever the test did there, `narrun verify` finds nothing afterwards."""
    place = Workplace(directory=tmp_path)
    yield place
    if place.database.exists():
        doorway.run(place, "verify").expect(0)


@pytest.fixture
def server(model: Path, tmp_path: Path) -> Iterator[LlamaServer]:
    """Each slot with a context of its own, no key."""
    with LlamaServer(model, tmp_path / "server") as running:
        yield running
