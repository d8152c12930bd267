"""Promises of a run whose endpoint dies of one narrative: that one pays, as `endpoint_crash`, and nobody else does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mortal_endpoint import MortalEndpoint

from narrun_async.errors import ExitCode
from narrun_async.limits.culprits import CRASHES_THAT_CONVICT
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]
Measured = Callable[[str], None]

#: part of the text of narrative 13, which has rank 14
POISON = "case-00013"
RANK = 14


async def run_against(rig: Any, endpoint: MortalEndpoint, **settings: Any) -> Any:
    provider = OpenAICompatibleProvider(url=endpoint.url, api_key=None)
    try:
        return await rig.run(provider=provider, **settings)
    finally:
        await provider.aclose()


def calls_by_kind(endpoint: MortalEndpoint, poison: str = POISON) -> tuple[int, int, int]:
    """Calls with the poison, other calls for narratives, probes."""
    calls = Counter("probe" if text == "probe" else poison in text for text in endpoint.calls())
    return calls[True], calls[False], calls["probe"]


@pytest.mark.fault("N16")
@pytest.mark.parametrize("concurrency", [1, 8, 32])
async def test_a_narrative_that_kills_the_server_again_and_again_is_the_only_error_row(
    open_rig: OpenRig, tmp_path: Path, measured: Measured, is_long: bool, concurrency: int
) -> None:
    if concurrency != 8 and not is_long:
        pytest.skip("takes five seconds; `make test-crash` runs it")
    n_narratives = 40 + concurrency
    async with open_rig(n_narratives) as rig:
        with MortalEndpoint(tmp_path, [POISON], latency_s=0.02) as endpoint:
            result = await run_against(rig, endpoint, concurrency=concurrency)
            deadly, others, probes = calls_by_kind(endpoint)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.COMPLETED_WITH_ERRORS, "completed")
        assert await rig.error_rows() == {RANK: "endpoint_crash"}
        assert len(await rig.rows()) == n_narratives
        # One crash among others, one or two while the window widens again, then alone.
        assert deadly == endpoint.n_deaths <= CRASHES_THAT_CONVICT + 3
        assert others <= n_narratives - 1 + 3 * concurrency
        assert probes <= 4 * deadly
        await rig.assert_invariants()
        measured(
            f"{concurrency} in flight: 1 error row of {n_narratives}, after {deadly} crashes;"
            f" {others - n_narratives + 1} calls for others repeated"
        )


@pytest.mark.fault("N16")
async def test_two_such_narratives_beside_each_other_are_both_found_and_nobody_else_is(
    open_rig: OpenRig, tmp_path: Path, measured: Measured, is_long: bool
) -> None:
    if not is_long:
        pytest.skip("takes ten seconds; `make test-crash` runs it")
    async with open_rig(60) as rig:
        with MortalEndpoint(tmp_path, ["case-00013", "case-00014"], latency_s=0.02) as endpoint:
            await run_against(rig, endpoint, concurrency=8)
            assert endpoint.n_deaths <= 2 * (CRASHES_THAT_CONVICT + 3)
        assert await rig.error_rows() == {14: "endpoint_crash", 15: "endpoint_crash"}
        assert len(await rig.rows()) == 60
        await rig.assert_invariants()
        measured(f"two culprits side by side: 2 error rows of 60, {endpoint.n_deaths} crashes")


@pytest.mark.fault("N16")
async def test_such_a_narrative_is_found_when_nobody_else_is_left_too(
    open_rig: OpenRig, tmp_path: Path, measured: Measured, is_long: bool
) -> None:
    if not is_long:
        pytest.skip("takes half a minute; `make test-crash` runs it")
    async with open_rig(1) as rig:
        with MortalEndpoint(tmp_path, ["case-00000"], latency_s=0.02) as endpoint:
            result = await run_against(rig, endpoint, concurrency=8)
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        assert await rig.error_rows() == {1: "endpoint_crash"}
        assert endpoint.n_deaths <= 2 * CRASHES_THAT_CONVICT + 5 + 3
        await rig.assert_invariants()
        measured(f"the last one left: its error row after three passes, {endpoint.n_deaths} crashes")


@pytest.mark.fault("N16")
@pytest.mark.parametrize("dies_at", [2, 5])
async def test_a_server_that_dies_of_every_nth_call_convicts_nobody(
    open_rig: OpenRig, tmp_path: Path, measured: Measured, is_long: bool, dies_at: int
) -> None:
    """Whoever was alone in flight when it died goes first when it is back, and is answered."""
    if not is_long:
        pytest.skip("takes half a minute; `make test-crash` runs it")
    n_narratives = 12 * (dies_at - 1)
    async with open_rig(n_narratives) as rig:
        with MortalEndpoint(tmp_path, latency_s=0.02, dies_at=dies_at) as endpoint:
            result = await run_against(rig, endpoint, concurrency=8)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        await rig.assert_invariants()
        measured(f"a server that dies of every call number {dies_at}: {endpoint.n_deaths} deaths, 0 error rows")
