"""Promises about ids that R wrote as numbers: what each stands for, what is repaired, and what stays and why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.models import ExperimentId, IdObstacle, IdRow, read_odd_id
from narrun_async.operations.repairing import count_strays, plan_repairs

X, Y = ExperimentId("x"), ExperimentId("y")


def narrative(row_id: int, incident_id: str, kind: str = "cme") -> IdRow:
    return IdRow(experiment_id=None, is_narrative=True, row_id=row_id, incident_id=incident_id, narrative_type=kind)


def result(row_id: int, incident_id: str, kind: str = "cme", experiment: ExperimentId | None = X) -> IdRow:
    return IdRow(
        experiment_id=experiment, is_narrative=False, row_id=row_id, incident_id=incident_id, narrative_type=kind
    )


# --- what an id stands for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "stands_for"),
    [
        ("1e+05", "100000"),
        ("9e+05", "900000"),
        ("1.2e+07", "12000000"),
        ("1.25e+10", "12500000000"),
        ("1e+14", "100000000000000"),
        ("1.23456789012345e+14", "123456789012345"),
        ("1.5e+01", "15"),
    ],
)
def test_an_id_with_an_exponent_stands_for_its_digits(written: str, stands_for: str) -> None:
    odd = read_odd_id(written)
    assert odd is not None
    assert (odd.written, odd.stands_for) == (written, stands_for)
    assert float(written) == int(stands_for)


@pytest.mark.parametrize("written", ["1e+15", "1.23456789012346e+15", "1e+22", "9.99e+120"])
def test_an_id_of_more_than_15_digits_stands_for_nothing_that_is_known(written: str) -> None:
    odd = read_odd_id(written)
    assert odd is not None
    assert odd.stands_for is None


@pytest.mark.parametrize(
    "written",
    [
        *("", "100000", "1e5", "1E+05", "1e+5", "1e-05", "-1e+05", "0e+05", "1.e+05", "1.0e+05", "10e+05"),
        *("1.25e+01", " 1e+05", "1e+05 ", "1e+05\n", "A1e+05", "1e+0５", "1.234567890123456e+20"),
        "1e+005",
    ],
)
def test_anything_else_is_an_id_as_it_stands(written: str) -> None:
    assert read_odd_id(written) is None


@given(st.integers(min_value=1, max_value=10**15 - 1))
def test_whatever_number_r_wrote_with_an_exponent_is_known_again(number: int) -> None:
    digits = str(number).rstrip("0")
    written = f"{digits[0]}{'.' + digits[1:] if digits[1:] else ''}e+{len(str(number)) - 1:02}"
    odd = read_odd_id(written)
    assert odd is not None
    assert odd.stands_for == str(number)


# --- what is repaired ------------------------------------------------------------------------------------------------


def test_narratives_and_results_are_repaired_together() -> None:
    rows = [narrative(1, "1e+05"), narrative(2, "1e+05", "le"), result(1, "1e+05"), result(2, "1e+05", experiment=Y)]
    plan = plan_repairs(rows)
    assert [(one.row, one.stands_for) for one in plan.repairs] == [(row, "100000") for row in rows]
    assert plan.left == []


def test_an_id_that_another_narrative_has_stays_for_the_whole_incident_and_its_results() -> None:
    rows = [
        *(narrative(1, "1e+05"), narrative(2, "1e+05", "le"), narrative(3, "100000")),
        *(result(1, "1e+05"), result(2, "1e+05", "le")),
    ]
    plan = plan_repairs(rows)
    assert plan.repairs == []
    assert [one.obstacle for one in plan.left] == [IdObstacle.NARRATIVE_TAKEN] * 2 + [IdObstacle.FOLLOWS_NARRATIVE] * 2
    assert {one.stands_for for one in plan.left} == {"100000"}


def test_the_same_id_of_the_other_type_is_no_obstacle() -> None:
    plan = plan_repairs([narrative(1, "1e+05", "cme"), narrative(2, "100000", "le")])
    assert [(one.row.row_id, one.stands_for) for one in plan.repairs] == [(1, "100000")]


def test_a_result_stays_where_its_experiment_has_the_plain_one_and_not_elsewhere() -> None:
    rows = [narrative(1, "100000"), result(1, "1e+05"), result(2, "100000"), result(3, "1e+05", experiment=Y)]
    plan = plan_repairs(rows)
    assert [one.row.row_id for one in plan.repairs] == [3]
    assert [(one.row.row_id, one.obstacle) for one in plan.left] == [(1, IdObstacle.RESULT_TAKEN)]


def test_what_cannot_be_known_again_is_never_repaired() -> None:
    plan = plan_repairs([narrative(1, "1e+15"), result(1, "1e+15")])
    assert plan.repairs == []
    assert {one.obstacle for one in plan.left} == {IdObstacle.UNKNOWN}


IDS = st.sampled_from(["1e+05", "1e+005", "100000", "2e+05", "200000", "1e+15", "1000000000000000", "7"])
KINDS = st.sampled_from(["cme", "le"])


@st.composite
def databases(draw: st.DrawFn) -> list[IdRow]:
    """Keys that are unique, as in a file that has its unique keys."""
    keys = draw(st.sets(st.tuples(IDS, KINDS), max_size=10))
    of_results = draw(st.sets(st.tuples(st.sampled_from([X, Y]), IDS, KINDS), max_size=16))
    narratives = [narrative(number, *key) for number, key in enumerate(sorted(keys))]
    return [*narratives, *(result(n, i, kind, x) for n, (x, i, kind) in enumerate(sorted(of_results)))]


@given(databases())
def test_a_repair_never_collides_and_takes_no_result_away_from_its_narrative(rows: list[IdRow]) -> None:
    plan = plan_repairs(rows)
    new_ids = {(one.row.is_narrative, one.row.row_id): one.stands_for for one in plan.repairs}
    repaired = [replace(row, incident_id=new_ids.get((row.is_narrative, row.row_id), row.incident_id)) for row in rows]

    assert len({(row.is_narrative, row.experiment_id, *row.key) for row in repaired}) == len(rows)
    before = {row.key for row in rows if row.is_narrative}
    after = {row.key for row in repaired if row.is_narrative}
    stay_for_another = {one.row.row_id for one in plan.left if one.obstacle is IdObstacle.RESULT_TAKEN}
    for old, new in zip(rows, repaired, strict=True):
        if not old.is_narrative and old.key in before and old.row_id not in stay_for_another:
            assert new.key in after
    assert plan_repairs(repaired).repairs == []  # safe to repeat
    assert count_strays(repaired, plan_repairs(repaired), X) == 0


# --- what would be paid for twice ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "strays"),
    [
        ([narrative(1, "100000"), result(1, "1e+05")], 1),
        ([narrative(1, "1e+05"), result(1, "100000")], 1),
        ([narrative(1, "1e+05"), result(1, "1e+05")], 0),
        ([narrative(1, "100000"), result(1, "1e+05"), result(2, "100000")], 0),
        ([narrative(1, "100000", "le"), result(1, "1e+05", "cme")], 0),
        ([narrative(1, "1e+15"), result(1, "1000000000000000")], 0),
        ([narrative(1, "100000"), result(1, "1e+05", experiment=Y)], 0),
        ([result(1, "1e+05")], 0),
    ],
)
def test_results_that_would_find_their_narratives_again_are_counted(rows: list[IdRow], strays: int) -> None:
    assert count_strays(rows, plan_repairs(rows), X) == strays
