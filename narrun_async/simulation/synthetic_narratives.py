"""Owns inventing cases: seeded, varied, with a true flag for intimate partner violence. Pure; no real text is involved.

About 15 % of the narratives are positive. Most of those contain a phrase of the keyword rule, some say it in other
words; some negatives contain such a phrase in another sense. So a rule does well on them, but not perfectly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from narrun_async.models import NarrativeType
from narrun_async.simulation import synthetic_sentences as sentences

MIN_CHARS = 300
MAX_CHARS = 2_500

_T = TypeVar("_T")

# 0.19 x (0.6 + 0.2) of the narratives of either kind: 15 %.
_CASE_POSITIVE_RATE = 0.19
_BOTH_MENTION_RATE = 0.6
_ONE_MENTIONS_RATE = 0.2
_INDIRECT_RATE = 0.15
_HARD_NEGATIVE_RATE = 0.08
_FIRST_YEAR, _N_YEARS = 2015, 8
_N_SITES = 45
#: old enough for every sentence, such as years of service or a grown nephew
_YOUNGEST = 27

_PRONOUNS = {
    "m": {"person": "man", "subj": "he", "obj": "him", "poss": "his"},
    "f": {"person": "woman", "subj": "she", "obj": "her", "poss": "her"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticNarrative:
    """An invented text and the truth about it."""

    text: str = field(repr=False)
    #: whether it tells of violence between partners
    is_positive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticCase:
    """An invented case, told twice."""

    incident_id: str
    incident_year: int
    site_id: int
    narratives: dict[NarrativeType, SyntheticNarrative] = field(repr=False)

    @property
    def is_positive(self) -> bool:
        return any(narrative.is_positive for narrative in self.narratives.values())


def iter_cases(*, n_cases: int, seed: int) -> Iterator[SyntheticCase]:
    """The cases of a seed, one after the other; the first n are the same however many are asked for."""
    for index in range(1, n_cases + 1):
        yield _invent_case(index, seed)


def pick(rng: random.Random, options: Sequence[_T]) -> _T:
    """One of the options.

    Drawn from `random()`, the only method of which Python promises that it stays the same across versions.
    """
    return options[int(rng.random() * len(options))]


def _invent_case(index: int, seed: int) -> SyntheticCase:
    rng = random.Random(f"{seed}:{index}")
    sex = "m" if rng.random() < 0.7 else "f"
    home = pick(rng, sentences.HOMES)
    mentions = _mentions(rng)
    circumstances = _shuffled(rng, tuple(sentences.CIRCUMSTANCES))[: 2 + int(rng.random() * 3)]
    facts = {
        **_PRONOUNS[sex],
        "age": str(_YOUNGEST + int(rng.random() * 60)),
        "partner": pick(rng, sentences.PARTNERS[sex]),
        "home": home,
        "a_home": f"{'an' if home[0] in 'aeiou' else 'a'} {home}",
        "finder": pick(rng, sentences.FINDERS),
    }
    facts |= {"Subj": facts["subj"].title(), "Poss": facts["poss"].title()}
    facts["finder_cap"] = facts["finder"].capitalize()
    return SyntheticCase(
        incident_id=f"{seed % 1000:03d}{index:06d}",
        incident_year=_FIRST_YEAR + int(rng.random() * _N_YEARS),
        site_id=1 + int(rng.random() * _N_SITES),
        narratives={
            kind: _tell(rng, kind, sex=sex, facts=facts, circumstances=circumstances, is_positive=kind in mentions)
            for kind in NarrativeType
        },
    )


def _mentions(rng: random.Random) -> frozenset[NarrativeType]:
    """Which of a case's narratives tell of partner violence."""
    if rng.random() >= _CASE_POSITIVE_RATE:
        return frozenset()
    draw = rng.random()
    if draw < _BOTH_MENTION_RATE:
        return frozenset(NarrativeType)
    return frozenset({NarrativeType.CME if draw < _BOTH_MENTION_RATE + _ONE_MENTIONS_RATE else NarrativeType.LE})


def _tell(
    rng: random.Random,
    kind: NarrativeType,
    *,
    sex: str,
    facts: dict[str, str],
    circumstances: Sequence[str],
    is_positive: bool,
) -> SyntheticNarrative:
    """Opening and discovery, then circumstances with the telling sentences among them, then background."""
    is_cme = kind is NarrativeType.CME
    openings = sentences.CME_OPENINGS if is_cme else sentences.LE_OPENINGS
    discovery = sentences.CME_DISCOVERY if is_cme else sentences.LE_DISCOVERY
    background = sentences.CME_BACKGROUND if is_cme else sentences.LE_BACKGROUND
    either_or = sentences.CME_EITHER_OR if is_cme else sentences.LE_EITHER_OR
    closing = _shuffled(rng, [*background, *(pick(rng, group) for group in either_or)])
    telling = _telling(rng, sex=sex, is_positive=is_positive)
    told = {name: _shuffled(rng, sentences.CIRCUMSTANCES[name]) for name in circumstances}
    if is_positive:
        # It says that there was no violence.
        told.pop("argument", None)
    start = [pick(rng, openings), pick(rng, discovery)]
    body = [sentence for options in told.values() for sentence in options[: 1 + int(rng.random() * 3)]]
    position = int(rng.random() * (min(2, len(body)) + 1))
    n_required = len(start) + position + len(telling)
    script = [*start, *body[:position], *telling, *body[position:], *closing]
    # Squared, so that short texts are the common ones.
    target_chars = MIN_CHARS + int((MAX_CHARS - MIN_CHARS) * rng.random() ** 2)
    return SyntheticNarrative(
        text=_write(rng, script, facts, n_required=n_required, target_chars=target_chars), is_positive=is_positive
    )


def _telling(rng: random.Random, *, sex: str, is_positive: bool) -> list[str]:
    """The sentences that decide the flag, or that are easily taken for such."""
    if not is_positive:
        return [pick(rng, sentences.HARD_NEGATIVES)] if rng.random() < _HARD_NEGATIVE_RATE else []
    if rng.random() < _INDIRECT_RATE:
        return [pick(rng, sentences.INDIRECT_VIOLENCE)]
    by_victim = rng.random() < (0.7 if sex == "m" else 0.25)
    options = (sentences.VIOLENCE_BY_VICTIM if by_victim else sentences.VIOLENCE_AGAINST_VICTIM)[sex]
    return _shuffled(rng, options)[: 1 + int(rng.random() * 2)]


def _write(
    rng: random.Random, script: Sequence[str], facts: dict[str, str], *, n_required: int, target_chars: int
) -> str:
    """Fill the sentences in until the text is long enough; what would make it too long is left out."""
    text = ""
    for position, template in enumerate(script):
        if position >= n_required and len(text) >= target_chars:
            break
        sentence = template.format_map(
            facts
            | {
                "n": str(2 + int(rng.random() * 8)),
                "hour": f"{int(rng.random() * 24):02d}",
                "minute": f"{int(rng.random() * 60):02d}",
                "month": pick(rng, sentences.MONTHS),
                "kin": pick(rng, sentences.KIN),
            }
        )
        if len(text) + 1 + len(sentence) <= MAX_CHARS:
            text = f"{text} {sentence}" if text else sentence
    return text


def _shuffled(rng: random.Random, options: Sequence[_T]) -> list[_T]:
    return sorted(options, key=lambda _: rng.random())
