"""Promises of a run whose endpoint answers with whatever it likes: each answer is one row, and its raw text is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from answers import BODIES
from deciding_server import SOUND, deciding, share
from raw_server import reply

from narrun_async.errors import ExitCode

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]
Measured = Callable[..., None]

#: row of the matrix → category of the error row it must become; the other answers are successes
CATEGORIES = {
    **dict.fromkeys(("A01", "A02", "A03"), "empty"),
    **{"A04": "truncated", "A05": "content_filter", "A06": "refusal", "A07": "no_content", "A08": "no_content"},
    # bad_envelope is the server's, so it is tried again in every pass
    **dict.fromkeys(("A10", "A11", "A12"), "transient_exhausted"),
    **{"A15": "ambiguous", "A16": "schema", "A18": "schema", "A27": "schema", "A28": "schema"},
    **dict.fromkeys(("A21", "A22", "A23", "A24"), "confidence_out_of_range"),
}
ANSWER_FAULTS = {row: category for row, category in CATEGORIES.items() if category != "transient_exhausted"}


def number_in(text: str) -> int:
    """The number of a made-up narrative, from 0."""
    return int(text.partition("case-")[2][:5])


@pytest.mark.fault("A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A09", "A10", "A11", "A12", "A13", "A14")
@pytest.mark.fault("A15", "A16", "A17", "A18", "A19", "A20", "A21", "A22", "A23", "A24", "A25", "A26", "A27", "A28")
@pytest.mark.fault("A29", "A30")
async def test_every_kind_of_answer_becomes_its_row_with_its_raw_text(open_rig: OpenRig, measured: Measured) -> None:
    rows_of_matrix = sorted(BODIES)

    def decide(number: int, text: str, attempt: int) -> bytes:
        return reply(BODIES[rows_of_matrix[number_in(text)]]) if number else SOUND

    async with open_rig(len(BODIES)) as rig, deciding(decide) as (decider, provider):
        result = await rig.run(provider=provider)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.COMPLETED_WITH_ERRORS, "completed")
        errors = await rig.error_rows()
        assert {rows_of_matrix[rank - 1]: category for rank, category in errors.items()} == CATEGORIES
        for row in await rig.rows():
            name = rows_of_matrix[row["row_num"] - 1]
            if CATEGORIES.get(name) != "transient_exhausted":
                assert row["raw_response"] == BODIES[name][:65_536].decode()
                assert decider.texts[f"Read this account: {row['narrative_text']}"] == 1
            measured(f"in a run: {CATEGORIES.get(name, 'success')}", fault=name)
        await rig.assert_invariants()


ODD = "a\ud800b\x00c\U0001f600\U0010ffff\ufffe"
STORED = "a\ufffdb\ufffdc\U0001f600\U0010ffff\ufffe"


@pytest.mark.fault("A32")
async def test_what_sqlite_cannot_store_is_replaced_and_the_writer_goes_on(
    open_rig: OpenRig, measured: Measured
) -> None:
    content = json.dumps({"detected": True, "confidence": 0.5, "indicators": [ODD], "rationale": ODD})
    by_kind = {
        0: json.dumps(
            {
                "model": ODD,
                "system_fingerprint": ODD,
                "choices": [{"message": {"content": content, "reasoning": ODD}, "finish_reason": ODD}],
            }
        ).encode(),
        # the same signs as prose, as raw bytes, and where nothing can be read
        1: json.dumps({"choices": [{"message": {"content": f"no JSON: {ODD}"}, "finish_reason": "stop"}]}).encode(),
        2: json.dumps(
            {"choices": [{"message": {"content": '{"detected": true, "rationale": "\U0001f600"}'}}]}, ensure_ascii=False
        ).encode(),
        3: b'{"choices": [{"message": {"content": "\xed\xa0\x80"}}]}',
    }

    def decide(number: int, text: str, attempt: int) -> bytes:
        return reply(by_kind.get(number_in(text) % 8, SOUND)) if number and number_in(text) % 8 < 4 else SOUND

    async with open_rig(160) as rig, deciding(decide) as (_, provider):
        result = await rig.run(provider=provider, max_passes=1)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.COMPLETED_WITH_ERRORS, "completed")
        errors = await rig.error_rows()
        assert errors == {
            number + 1: {1: "bad_json", 3: "transient_exhausted"}[number % 8]
            for number in range(160)
            if number % 8 in (1, 3)
        }
        seen = set(
            rig.query(
                "SELECT indicators, rationale, reasoning_steps, response_model, system_fingerprint, finish_reason"
                " FROM narrative_results WHERE (row_num - 1) % 8 = 0"
            )
        )
        assert seen == {(json.dumps([STORED], ensure_ascii=False), STORED, STORED, STORED, STORED, STORED)}
        assert rig.query("SELECT DISTINCT rationale FROM narrative_results WHERE (row_num - 1) % 8 = 2") == [
            ("\U0001f600",)
        ]
        # A NUL would end the text for `length` and for comparisons.
        assert rig.query("SELECT COUNT(*) FROM narrative_results WHERE instr(raw_response, char(0))") == [(0,)]
        await rig.assert_invariants()
    measured("80 of 160 answers with such signs: 160 rows, U+FFFD for what cannot be stored, 0 rows lost")


@pytest.mark.fault("A33")
async def test_one_bad_answer_in_ten_gives_exactly_those_error_rows(
    open_rig: OpenRig, measured: Measured, is_long: bool
) -> None:
    n_narratives = 3_000 if is_long else 300
    kinds = sorted(ANSWER_FAULTS)

    def kind_for(text: str) -> str | None:
        drawn = share(text, 0)
        return kinds[int(drawn * 10 * len(kinds))] if drawn < 0.1 else None

    def decide(number: int, text: str, attempt: int) -> bytes:
        kind = kind_for(text) if number else None
        return SOUND if kind is None else reply(BODIES[kind])

    async with open_rig(n_narratives) as rig, deciding(decide) as (decider, provider):
        result = await rig.run(provider=provider, concurrency=16)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.COMPLETED_WITH_ERRORS, "completed")
        expected = {
            row["row_num"]: ANSWER_FAULTS[kind]
            for row in await rig.rows()
            if (kind := kind_for(f"Read this account: {row['narrative_text']}")) is not None
        }
        assert len(expected) > n_narratives / 20
        assert await rig.error_rows() == expected
        assert decider.n_calls == len(await rig.rows()) == n_narratives
        await rig.assert_invariants()
    measured(f"{len(expected)} of {n_narratives} answers bad, {len(expected)} error rows, each of its kind; exit 1")
