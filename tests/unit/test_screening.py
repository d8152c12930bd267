"""Promises of screening: what a placeholder is and what is none, near-empty and cut-off texts, and the rule file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from narrun_async.errors import ConfigurationError, ExitCode
from narrun_async.models import TextFlag
from narrun_async.screening import EXCEL_CELL_CHARS, ScreeningRules, flags_text, normalise
from narrun_async.simulation.synthetic_narratives import iter_cases
from narrun_async.simulation.synthetic_sentences import PLACEHOLDERS
from narrun_async.sources.screening_rules import PACKAGED_RULES, load_rules


@pytest.fixture(scope="module")
def rules() -> ScreeningRules:
    return load_rules()


# --- placeholders ----------------------------------------------------------------------------------------------------

KNOWN = {
    "no-report": [
        "No report available.",
        "No LE report available",
        "*** NO REPORT (L/E) AVAILABLE ***",
        "No law enforcement report received for this incident.",
        "There is no police report on file",
        "No police report was available for the decedent",
        "No report as of 01/02/2019",
        "No narrative",
        "No further details available at this time.",
        "No C/ME report",
        "  no  report\n\navailable ",
        "Nothing to report",
    ],
    "not-available": [
        "Not available",
        "LE report unavailable",
        "Medical Examiner report not yet received.",
        "Coroner’s report could not be obtained.",
        "Report not available at time of abstraction.",
        "Unable to locate police report",
        "Law enforcement narrative missing",
    ],
    "pending": [
        "Pending",
        "Report pending.",
        "Pending toxicology results",
        "Still awaiting police report",
        "Records requested, not received",
        "To be completed",
        "TBD",
    ],
    "elsewhere": ["See CME narrative", "Please see LE report.", "Same as above", "same as CME", "ditto"],
    "nothing": ["N/A", "na", "None.", "LE: N/A", "CME narrative: none", "Unknown", "Not applicable", "NULL"],
    "withheld": ["[REDACTED]", "Narrative redacted"],
    "code": ["99", "9999", "0"],
    "no-letters": ["-", "...", "?", "--- / ---"],
}


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in KNOWN.items() for text in texts])
def test_a_text_that_says_there_is_none_is_a_placeholder(rules: ScreeningRules, rule: str, text: str) -> None:
    assert rules.placeholder_rule(text) == rule
    assert rules.flags_of(text) == (TextFlag.PLACEHOLDER,)


@pytest.mark.parametrize(
    "text",
    [
        "No report available to officers when they arrived; the decedent was found by a neighbour in the garage.",
        "LE report not available. The CME states that the decedent was found hanging in a closet by her husband.",
        "No reports of violence.",
        "No history of depression",
        "No suicide note found.",
        "No known history of intimate partner violence.",
        "No incident of domestic violence reported",
        "No information on the ex-husband.",
        "No records of prior DV",
        "Pending divorce.",
        "Pending charges against the decedent for assault",
        "Victim missing since Monday.",
        "Unknown male shot the victim.",
        "None of the family knew",
        "Same day she left him he shot himself",
        "See wife's statement",
        "Per wife he was sad",
        "Not known to be suicidal",
        "Removed from life support",
        "Police found victim",
        "GSW to head.",
        "Hanging.",
        "911 called at 9",
    ],
)
def test_a_text_that_says_something_is_none_however_short_it_is(rules: ScreeningRules, text: str) -> None:
    assert rules.placeholder_rule(text) is None


def test_a_narrative_that_contains_any_of_the_phrases_is_none(rules: ScreeningRules) -> None:
    for phrase in (text for texts in KNOWN.values() for text in texts if any(map(str.isalpha, text))):
        before = f"The decedent was found at home by a relative. {phrase}"
        after = f"{phrase} The decedent was found at home by a relative."
        assert rules.placeholder_rule(before) is None, phrase
        assert rules.placeholder_rule(after) is None, phrase


def test_made_up_narratives_and_placeholders_are_told_apart_without_a_mistake(rules: ScreeningRules) -> None:
    texts = [one.text for case in iter_cases(n_cases=300, seed=9) for one in case.narratives.values()]
    assert len(texts) > 500
    assert [text for text in texts if TextFlag.PLACEHOLDER in rules.flags_of(text)] == []
    assert all(rules.flags_of(text) == (TextFlag.PLACEHOLDER,) for text in PLACEHOLDERS)


def test_a_long_text_is_none_even_if_the_rules_would_match_it(rules: ScreeningRules) -> None:
    assert rules.placeholder_rule("N/A" + " " * 90) == "nothing"
    assert rules.placeholder_rule("report " * 60 + "pending") is None


def test_normalising_keeps_letters_and_digits_of_any_script_and_one_case() -> None:
    assert normalise("  *** NO REPORT (L/E) AVAILABLE.\n") == "no report l e available"
    assert normalise("Coroner’s  REPORT_n°5") == "coroners report n 5"
    assert normalise("Ｎ／Ａ") == "n a"
    assert normalise("Отчёта НЕТ!") == "отчёта нет"
    assert normalise("— … —") == ""


# --- near-empty, cut off ---------------------------------------------------------------------------------------------


def test_a_text_of_hardly_a_word_is_near_empty_unless_it_is_a_placeholder(rules: ScreeningRules) -> None:
    assert rules.flags_of("GSW to head.") == (TextFlag.NEAR_EMPTY,)
    assert rules.flags_of("x" * 19) == (TextFlag.NEAR_EMPTY,)
    assert rules.flags_of("x" * 20) == ()
    assert rules.flags_of("- " * 5_000 + "hanging") == (TextFlag.NEAR_EMPTY,)
    assert rules.flags_of("- " * 5_000 + "hanging in the garage, alone") == ()
    assert rules.flags_of("None.") == (TextFlag.PLACEHOLDER,)


SENTENCE = "The decedent was found at home by a relative. "


def of_length(length: int, end: str) -> str:
    text = (SENTENCE * (length // len(SENTENCE) + 1))[: length - len(end)]
    return text + end


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(of_length(EXCEL_CELL_CHARS, "."), id="a full cell"),
        pytest.param(of_length(EXCEL_CELL_CHARS - 2, "x").replace("home by", "home\nby", 2), id="a full cell, CRLF"),
        pytest.param("𝕏" * ((EXCEL_CELL_CHARS - 1) // 2) + "x", id="a full cell of wide characters"),
        pytest.param(of_length(4000, " and th"), id="as long as a column may be, within a word"),
        pytest.param(of_length(255, " and,"), id="within a sentence"),
        pytest.param(f"{SENTENCE}[Truncated]\n", id="a mark"),
        pytest.param(f"{SENTENCE}(cont'd)", id="another mark"),
    ],
)
def test_a_text_that_was_cut_off_is_told_where_that_shows(rules: ScreeningRules, text: str) -> None:
    assert rules.flags_of(text) == (TextFlag.TRUNCATED,)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(of_length(4000, " end."), id="a sentence that ends there"),
        pytest.param(of_length(4001, " and th"), id="one character more"),
        pytest.param(of_length(EXCEL_CELL_CHARS + 500, "."), id="longer than a cell, so from no cell"),
        pytest.param(of_length(EXCEL_CELL_CHARS - 1, "."), id="a cell with room for one more"),
        pytest.param("He said that he could not go on...", id="dots that mean something"),
        pytest.param("The text was [truncated] by the officer, who went on to say more.", id="a mark within"),
    ],
)
def test_a_text_that_may_well_end_there_is_not(rules: ScreeningRules, text: str) -> None:
    assert rules.flags_of(text) == ()


def test_flags_are_stored_in_one_order() -> None:
    assert flags_text(()) == ""
    assert flags_text((TextFlag.PLACEHOLDER, TextFlag.TRUNCATED)) == "placeholder,truncated"


# --- the rule file ---------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "name": "mine",
    "words": {"gone": ["lost|away"], "all": ["every {gone}"]},
    "placeholders": [{"name": "lost", "reason": "made up", "patterns": ["it is {all}", "nil{2}"]}],
    "near_empty_below": 3,
}


def write(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def test_the_packaged_rules_name_themselves_and_give_a_reason_for_each(rules: ScreeningRules) -> None:
    assert rules.name == "narrun-1"
    assert rules.sha256 == hashlib.sha256(PACKAGED_RULES.read_bytes()).hexdigest()
    assert str(rules) == f"narrun-1 (sha256 {rules.sha256[:12]})"
    assert {*KNOWN} == {*rules.placeholders}, "a rule without an example"


def test_a_file_of_ones_own_takes_the_place_of_all_rules(tmp_path: Path) -> None:
    mine = load_rules(write(tmp_path, SMALL))
    assert mine.placeholder_rule("It is EVERY lost!") == mine.placeholder_rule("nill") == "lost"
    assert mine.flags_of("N/A") == (TextFlag.NEAR_EMPTY,)
    assert mine.flags_of("No report available.") == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda one: one.pop("name"), "`name` is missing", id="no name"),
        pytest.param(lambda one: one.update(names="x"), "unknown key `names`", id="an unknown key"),
        pytest.param(lambda one: one["placeholders"].clear(), "`placeholders`", id="no rule"),
        pytest.param(lambda one: one["placeholders"][0].update(patterns=["(a"]), "rule 'lost'", id="no expression"),
        pytest.param(lambda one: one["placeholders"][0].update(patterns=["{b}"]), "none of the `words`", id="a word"),
        pytest.param(lambda one: one["words"].update(gone=["{all}"]), "`words.gone`", id="a word below"),
        pytest.param(lambda one: one["words"].update(gone=["*"]), "`words.gone`", id="a word that is none"),
        pytest.param(lambda one: one["placeholders"].append(one["placeholders"][0]), "two rules", id="twice"),
        pytest.param(lambda one: one.update(near_empty_below="3"), "`near_empty_below`", id="a text for a number"),
        pytest.param(lambda one: one.update(name="x" * 81), "at most 80", id="a long name"),
    ],
)
def test_a_rule_file_that_cannot_be_taken_is_refused_in_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    document = deepcopy(SMALL)
    change(document)
    # safe_dump would write an alias for a rule that is there twice
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.dump(document, Dumper=_WithoutAliases, sort_keys=False), encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        load_rules(path)
    assert says in str(refused.value)
    assert str(path) in str(refused.value)
    assert refused.value.exit_code is ExitCode.CONFIGURATION


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def test_a_rule_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        load_rules(tmp_path / "none.yaml")
