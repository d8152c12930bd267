"""Owns the keyword rule's words: what the simulated endpoint looks for and the synthetic narratives mostly contain.

The rule means nothing about real cases: it finds these phrases, not intimate partner violence.
"""

from __future__ import annotations

#: lower case; looked for in the lower-cased text. What a question about the subject would itself say is left out.
PARTNER_VIOLENCE_PHRASES = (
    "domestic violence",
    "protective order",
    "restraining order",
    "no-contact order",
    "struck his wife",
    "struck her husband",
    "assaulted his girlfriend",
    "assaulted her boyfriend",
    "assaulted his wife",
    "hit his partner",
    "hit her partner",
    "physically abused by",
    "physically abusive toward",
    "choked",
    "threatened to kill her",
    "threatened to kill him",
    "stalking",
)
