"""Which columns a header announces."""

from __future__ import annotations

import pytest

from narrun_async.errors import BadInputError
from narrun_async.sources.layouts import Shape, find_layout, has_required_columns

WIDE = ["IncidentID", "NarrativeCME", "NarrativeLE"]
LABELS = ["ipv_manualCME", "ipv_manualLE", "ipv_manual"]
LONG = ["incident_id", "narrative_type", "narrative_text", "manual_flag_ind"]


def test_other_columns_are_allowed_and_not_read() -> None:
    layout = find_layout([None, "SiteID", *WIDE[::-1], *LABELS, "SiteID"], where="f")
    assert layout.shape is Shape.WIDE
    assert layout.columns == {
        "NarrativeLE": 2,
        "NarrativeCME": 3,
        "IncidentID": 4,
        "ipv_manualCME": 5,
        "ipv_manualLE": 6,
        "ipv_manual": 7,
    }
    assert layout.warnings == ()


def test_the_long_layout_may_lack_the_flag_of_the_case() -> None:
    assert find_layout(LONG, where="f").shape is Shape.LONG
    assert "manual_flag" not in find_layout(LONG, where="f").columns
    assert find_layout([*LONG, "manual_flag"], where="f").columns["manual_flag"] == 4
    assert has_required_columns(LONG) and has_required_columns([*WIDE, None]) and not has_required_columns(WIDE[1:])


@pytest.mark.fault("W01")
@pytest.mark.parametrize(
    ("header", "said"),
    [
        (["IncidentID", "narrativecme", "NarrativeLE"], "rename 'narrativecme' to 'NarrativeCME'"),
        (["Incident_ID", "NarrativeCME", "NarrativeLE"], "rename 'Incident_ID' to 'IncidentID'"),
        (
            ["IncidentID", "NarrativeCME"],
            "no column NarrativeLE; expected IncidentID, NarrativeCME, NarrativeLE; found",
        ),
        ([*WIDE, "NarrativeLE"], "the column NarrativeLE is there twice"),
        ([*WIDE, "ipv_manualCME", "ipv_manual_LE", "ipv_manual"], "rename 'ipv_manual_LE' to 'ipv_manualLE'"),
        ([*WIDE, "ipv_manual"], "no column ipv_manualCME, ipv_manualLE"),
        (LONG[:3], "no column manual_flag_ind"),
        (["incident_id", "type", "narrative_text", "manual_flag_ind"], "no column narrative_type"),
    ],
)
def test_a_missing_renamed_or_repeated_column_is_named_with_what_was_found(header: list[str], said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        find_layout(header, where="cases.xlsx, sheet 'S'")
    assert str(caught.value).startswith("cases.xlsx, sheet 'S': ")
    assert said in str(caught.value)


def test_label_columns_under_other_names_are_warned_of() -> None:
    layout = find_layout([*WIDE, "IPV_Manual"], where="f")
    assert "ipv_manual" not in layout.columns
    assert any("'IPV_Manual' is not read" in warning and "'ipv_manual'" in warning for warning in layout.warnings)


@pytest.mark.fault("W01")
def test_a_file_without_header_shows_none_of_its_text() -> None:
    with pytest.raises(BadInputError) as caught:
        find_layout(["100", "An invented text that is a little longer than a name", None], where="f")
    assert "invented" not in str(caught.value)
    assert "(a text of 52 characters)" in str(caught.value)


@pytest.mark.fault("W01")
@pytest.mark.parametrize(
    "header",
    [["100", "Found by two sisters", "Shot at home"], ["IncidentID", "narrative", "Found by two sisters"]],
    ids=["no header", "a header that has run into a row"],
)
def test_not_even_a_short_text_is_shown_where_it_cannot_be_the_name_of_a_column(header: list[str]) -> None:
    with pytest.raises(BadInputError) as caught:
        find_layout(header, where="f")
    assert "sisters" not in str(caught.value)
    assert "home" not in str(caught.value)


def test_the_names_of_a_header_without_any_known_one_are_shown() -> None:
    with pytest.raises(BadInputError, match="found 'ID', 'CME', 'LE'"):
        find_layout(["ID", "CME", "LE"], where="f")


def test_the_year_of_the_incident_is_read_where_it_is_and_missed_by_nobody() -> None:
    assert find_layout([*WIDE, "IncidentYear"], where="f").columns["IncidentYear"] == 3
    assert find_layout([*LONG, "incident_year"], where="f").columns["incident_year"] == 4
    for header in (WIDE, LONG, [*WIDE, *LABELS]):
        assert find_layout(header, where="f").warnings == ()


def test_a_year_column_under_another_name_or_there_twice_keeps_nothing_out() -> None:
    near = find_layout([*WIDE, "Incident_Year"], where="f")
    assert near.warnings == ("the column 'Incident_Year' is not read; if it is meant for 'IncidentYear', rename it so",)
    twice = find_layout([*WIDE, "IncidentYear", "IncidentYear"], where="f")
    assert "IncidentYear" not in twice.columns
    assert twice.warnings == ("the column IncidentYear is there twice, so neither is read",)


@pytest.mark.parametrize(
    ("header", "advice"),
    [
        (["IncidentID", "NarrativeCME", "NarrativeLE", "ipv_manualCME"], "or leave out all columns of labels"),
        (["incident_id", "narrative_type", "narrative_text"], "leave it empty where nobody has labelled"),
        (["IncidentID", "NarrativeCME", "x"], "put the column names into the first row"),
    ],
)
def test_a_missing_column_gets_the_advice_that_fits(header: list[str], advice: str) -> None:
    with pytest.raises(BadInputError, match=advice):
        find_layout(header, where="cases.xlsx")
