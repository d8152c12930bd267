"""The invented cases: repeatable, varied, and about as hard as intended."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

from narrun_async.models import NarrativeType
from narrun_async.simulation import synthetic_sentences as sentences
from narrun_async.simulation.keywords import PARTNER_VIOLENCE_PHRASES
from narrun_async.simulation.synthetic_narratives import MAX_CHARS, MIN_CHARS, iter_cases

CASES = list(iter_cases(n_cases=2_000, seed=5))
NARRATIVES = [narrative for case in CASES for narrative in case.narratives.values()]


def _has_phrase(text: str) -> bool:
    return any(phrase in text.lower() for phrase in PARTNER_VIOLENCE_PHRASES)


def test_a_seed_gives_the_same_cases_however_many_are_asked_for() -> None:
    assert list(islice(iter_cases(n_cases=50, seed=5), 50)) == CASES[:50]
    assert next(iter_cases(n_cases=1, seed=6)).narratives != CASES[0].narratives


def test_every_case_is_told_by_cme_and_then_by_le_under_its_own_id() -> None:
    assert all(tuple(case.narratives) == (NarrativeType.CME, NarrativeType.LE) for case in CASES)
    assert len({case.incident_id for case in CASES}) == len(CASES)


def test_lengths_are_those_of_real_narratives() -> None:
    lengths = [len(narrative.text) for narrative in NARRATIVES]
    assert min(lengths) >= MIN_CHARS and max(lengths) <= MAX_CHARS
    assert max(lengths) > 1_900
    assert 800 <= sum(lengths) / len(lengths) <= 1_300


def test_hardly_any_two_texts_are_alike() -> None:
    assert len({narrative.text for narrative in NARRATIVES}) > 0.99 * len(NARRATIVES)


def test_about_15_percent_are_positive_and_a_case_is_if_one_of_its_narratives_is() -> None:
    assert 0.12 <= sum(narrative.is_positive for narrative in NARRATIVES) / len(NARRATIVES) <= 0.18
    assert any(case.is_positive and not case.narratives[NarrativeType.LE].is_positive for case in CASES)


def test_the_keyword_rule_does_well_but_not_perfectly() -> None:
    found = Counter((narrative.is_positive, _has_phrase(narrative.text)) for narrative in NARRATIVES)
    precision = found[True, True] / (found[True, True] + found[False, True])
    recall = found[True, True] / (found[True, True] + found[True, False])
    assert 0.65 <= precision <= 0.9
    assert 0.7 <= recall <= 0.95


def test_every_field_is_filled_in_and_reads_as_a_sentence() -> None:
    for narrative in NARRATIVES:
        assert not re.search(r"[{}]|\ba [aeiou]partment\b|  ", narrative.text)
        assert narrative.text.endswith(".") and narrative.text[0].isupper()


def test_phrases_are_lower_case_so_that_the_rule_can_find_them() -> None:
    assert all(phrase == phrase.lower() for phrase in PARTNER_VIOLENCE_PHRASES)


def test_sentences_for_positives_and_negatives_are_kept_apart() -> None:
    assert not any(_has_phrase(sentence) for sentence in sentences.INDIRECT_VIOLENCE)
    innocent = [*sentences.CME_BACKGROUND, *sentences.LE_BACKGROUND, *sum(sentences.CIRCUMSTANCES.values(), ())]
    assert not any(_has_phrase(sentence) for sentence in innocent)
    assert any(_has_phrase(sentence) for sentence in sentences.HARD_NEGATIVES)
