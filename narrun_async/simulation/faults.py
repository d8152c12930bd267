"""Decides which fault a request meets; pure, so that a run can be repeated and compared.

One digest of (seed, text) drives everything about a narrative; one of (that digest, attempt) its transient faults.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import NamedTuple

from narrun_async.simulation.behaviour import LASTING_FAULTS, TRANSIENT_FAULTS, Behaviour, Fault

_WORD = struct.Struct(">I")
_WORDS = struct.Struct(">8I")
_ATTEMPT_WORDS = struct.Struct(f">{len(TRANSIENT_FAULTS)}I")
_TWO_TO_32 = 2.0**32


class Draws(NamedTuple):
    """Independent numbers in [0, 1) that stay with a narrative; the last four in the order of `LASTING_FAULTS`."""

    flip: float
    confidence: float
    form: float
    latency: float
    http_400: float
    malformed: float
    truncated: float
    refusal: float


def text_digest(seed: int, text: str) -> bytes:
    """The 32 bytes that stand for a text under a seed."""
    return sha256(f"{seed}:{text}".encode("utf-8", "surrogatepass")).digest()


def draws_of(digest: bytes) -> Draws:
    """The numbers that a digest of `text_digest` holds."""
    return Draws._make(word / _TWO_TO_32 for word in _WORDS.unpack(digest))


def fault_for(
    behaviour: Behaviour,
    *,
    text: str,
    digest: bytes,
    attempt: int,
    is_reminded: bool = False,
    token_limit: int | None = None,
) -> Fault | None:
    """The fault that this attempt (from 1) of this text meets, if any.

    What the server does comes before what the model says: a narrative with a malformed answer can get 500 first.

    :param is_reminded: the request ends with the reminder of a second try
    :param token_limit: that the request allows; None: it says nothing
    """
    fault = _fault_before_any_change(behaviour, text=text, digest=digest, attempt=attempt)
    if fault is Fault.MALFORMED and is_reminded and _mend_draw(digest) < behaviour.mend_rate:
        return None
    if fault is Fault.TRUNCATED and behaviour.enough_tokens is not None:
        return None if token_limit is None or token_limit >= behaviour.enough_tokens else fault
    return fault


def _fault_before_any_change(behaviour: Behaviour, *, text: str, digest: bytes, attempt: int) -> Fault | None:
    for part, name in behaviour.always.items():
        if part in text:
            return Fault(name)
    rates = behaviour.fault_rates
    if not rates:
        return None
    fault = _transient_fault(rates, digest=digest, attempt=attempt)
    if fault is not None:
        return fault
    for fault, draw in zip(LASTING_FAULTS, draws_of(digest)[4:], strict=True):
        if draw < rates.get(fault, 0.0):
            return fault
    return None


def _mend_draw(digest: bytes) -> float:
    (word,) = _WORD.unpack(blake2b(digest, digest_size=_WORD.size, person=b"mend").digest())
    return float(word / _TWO_TO_32)


def outage_fault(behaviour: Behaviour) -> Fault | None:
    """The transient fault that every request meets, a probe too: a rate of 1 is an outage, not an accident."""
    for fault in TRANSIENT_FAULTS:
        if behaviour.fault_rates.get(fault, 0.0) >= 1:
            return fault
    return None


def _transient_fault(rates: Mapping[str, float], *, digest: bytes, attempt: int) -> Fault | None:
    seed = digest + attempt.to_bytes(8, "big")
    words = _ATTEMPT_WORDS.unpack(blake2b(seed, digest_size=_ATTEMPT_WORDS.size).digest())
    for fault, word in zip(TRANSIENT_FAULTS, words, strict=True):
        if word / _TWO_TO_32 < rates.get(fault, 0.0):
            return fault
    return None
