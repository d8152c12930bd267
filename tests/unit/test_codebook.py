"""The codebook describes every column that there is, in terms that every format can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from narrun_async.codebook import (
    BROWSED_COLUMNS,
    OUR_COLUMNS,
    R_COLUMNS,
    RESULT_COLUMNS,
    TEXT_COLUMNS,
    Column,
    Kind,
    chosen_columns,
)
from narrun_async.models import ErrorCategory, NarrativeType
from narrun_async.stores.sqlite import schema, scrubbing

TABLES: Mapping[str, Mapping[str, str]] = {
    "narrative_results": schema.NARRATIVE_RESULTS,
    "experiments": schema.EXPERIMENTS,
    "runs": schema.RUNS,
    "attempts": schema.ATTEMPTS,
    "servings": schema.SERVINGS,
    "canary_answers": schema.CANARY_ANSWERS,
}


def column(name: str) -> Column:
    return next(one for one in RESULT_COLUMNS if one.name == name)


def test_every_column_of_the_results_is_described_in_the_order_of_the_table() -> None:
    assert [one.name for one in RESULT_COLUMNS] == list(schema.NARRATIVE_RESULTS)
    assert (*R_COLUMNS, *OUR_COLUMNS) == tuple(schema.NARRATIVE_RESULTS)
    assert (R_COLUMNS[-1], OUR_COLUMNS[0]) == ("is_false_negative", "error_category")


@pytest.mark.parametrize("described", RESULT_COLUMNS, ids=lambda one: one.name)
def test_a_description_is_whole_and_fits_every_format(described: Column) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9]{0,7}", described.short_name)
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,31}", described.name)  # Stata holds 32 characters
    assert 0 < len(described.label) <= 40 and described.label.isascii()
    assert described.meaning.endswith(".")
    assert not described.unit or described.kind.is_numeric
    assert all(isinstance(value, int) is described.kind.is_numeric for value in described.values)


@pytest.mark.parametrize("described", RESULT_COLUMNS, ids=lambda one: one.name)
def test_the_kind_of_a_column_is_that_of_the_table(described: Column) -> None:
    declared = schema.NARRATIVE_RESULTS[described.name].split()[0]
    expected = {"INTEGER": {Kind.FLAG, Kind.WHOLE}, "REAL": {Kind.NUMBER}}
    texts = {kind for kind in Kind if not kind.is_numeric}
    assert described.kind in expected.get(declared, texts)


def test_short_names_are_unique() -> None:
    assert len({one.short_name for one in RESULT_COLUMNS}) == len(RESULT_COLUMNS)


def test_what_quotes_a_narrative_is_left_out_unless_it_is_asked_for() -> None:
    assert {"narrative_text", "raw_response", "rationale", "reasoning_steps", "indicators"} == TEXT_COLUMNS
    assert not {one.name for one in chosen_columns(with_text=False)} & TEXT_COLUMNS
    assert list(chosen_columns(with_text=True)) == list(RESULT_COLUMNS)


def test_what_scrubbing_takes_from_the_results_is_a_text_or_a_sentence_about_an_error() -> None:
    scrubbed = set(scrubbing.TEXT_COLUMNS["narrative_results"])
    assert scrubbed - {"error_message", "first_error_message"} == TEXT_COLUMNS


def test_every_error_category_and_narrative_type_has_words() -> None:
    assert set(column("error_category").values) == set(ErrorCategory)
    assert set(column("narrative_type").values) == set(NarrativeType)


@pytest.mark.parametrize("table", BROWSED_COLUMNS)
def test_what_is_described_for_browsing_is_there(table: str) -> None:
    of_the_narrative = {"incident_id", "narrative_type"} if "narrative_id" in TABLES[table] else {"agreement"}
    assert set(BROWSED_COLUMNS[table]) <= {*TABLES[table], *of_the_narrative}
