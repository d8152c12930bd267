"""Exceptions that hold a narrative or a key, as other people's code raises them: what is told and written of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narrun_async.cli.program import EXIT_SOFTWARE, _explain
from narrun_async.logs import open_experiment_logs
from narrun_async.models import RawReply

CANARY = "NARRATIVECANARY sk-made-up-key-0123456789"


class Provider:
    """Fails in a way that nobody foresaw, once, with everything it knows in the exception."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.n_raised = 0

    async def complete(self, body: bytes) -> RawReply:
        if not self.n_raised and b"00003" in body:
            self.n_raised += 1
            raise KeyError(f"{CANARY} {body!r}")
        return await self._real.complete(body)  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        return None


@pytest.mark.fault("S01", "S02")
async def test_a_defect_at_one_narrative_leaves_its_kind_in_row_and_log_and_none_of_its_words(
    open_rig: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, measured: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_rig(12, latency_ms=0) as rig:
        provider = Provider(rig.provider)
        with open_experiment_logs(tmp_path / "logs", level="debug"):
            await rig.run(provider=provider)
        rows = await rig.rows()

    assert provider.n_raised == 1
    (failed,) = [row for row in rows if row["error_occurred"]]
    assert (failed["error_category"], failed["error_message"]) == ("internal", "defect in narrun: KeyError")
    written = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert "internal" in written
    assert "NARRATIVECANARY" not in written + caplog.text
    assert "Synthetic account" not in written + caplog.text
    measured("0 hits after an unforeseen exception at one narrative")


@pytest.mark.fault("S01", "S02")
def test_a_traceback_shows_places_and_no_words(capsys: pytest.CaptureFixture[str], measured: Any) -> None:
    def fail(text: str) -> None:
        try:
            raise ValueError(f"{text} inside")
        except ValueError as error:
            raise RuntimeError(f"{text} outside") from error

    for _ in range(2):
        try:
            fail(CANARY)
        except RuntimeError as error:
            error.add_note(CANARY)
            code = _explain(error)
    told = capsys.readouterr()

    assert code == EXIT_SOFTWARE
    assert "RuntimeError" in told.err
    assert Path(__file__).name in told.err
    assert "NARRATIVECANARY" not in told.out + told.err
    assert "sk-made-up" not in told.out + told.err
    assert sys.exc_info() == (None, None, None)
    measured("0 hits in a traceback at the top of the program")
