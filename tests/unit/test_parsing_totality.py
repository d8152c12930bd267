"""The parser is total: whatever the bytes are, an outcome comes out, soon, and it can be stored."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from answers import BODIES, GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.models import Detection, Envelope, Failure, Verdict
from narrun_async.parsing import parse_answer, parse_envelope, stored_raw

Measured = Callable[[str], None]
SOUND = [path.read_bytes() for path in sorted(GOLDEN.iterdir())]
#: what turns one kind of answer into another
TOKENS = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\x00", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000"),
    *(b"null", b"true", b"false", b"NaN", b"1e999", b"9" * 40, b"-", b"0. nine", b"95%", b"```json\\n", b"```", b"//"),
    *(b"<think>", b"</think>", b"<|channel|>final<|message|>", b"<|end|>", b'"detected"', b'\\"detected\\": true'),
    *(b'"content"', b'"choices"', b'"error"', b"data: ", b"<html>", b"\xef\xbb\xbf", b"[" * 70, b"\xf0\x9f\x98\x80"),
]


def mutate(rng: random.Random, body: bytes) -> bytes:
    """One to four changes: a token put in, a piece cut out, doubled or taken from another answer, a byte changed."""
    changed = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        until = min(len(changed), at + rng.choice((1, 2, 8, 40)))
        match rng.randrange(6):
            case 0:
                changed[at:at] = rng.choice(TOKENS)
            case 1:
                del changed[at:until]
            case 2:
                changed[at:at] = changed[at:until]
            case 3:
                other = rng.choice(SOUND)[:2000]
                start = rng.randrange(len(other) + 1)
                changed[at:until] = other[start : start + 60]
            case 4:
                del changed[at:]
            case _:
                changed[at:until] = rng.randbytes(until - at)
    return bytes(changed)


def iter_bodies(rng: random.Random, count: int) -> Iterator[bytes]:
    """Mutated bodies, sound envelopes around mutated contents, and bytes of no meaning."""
    short = [body for body in SOUND if len(body) < 4_000]
    contents = [
        json.loads(body)["choices"][0]["message"]["content"]
        for name, body in BODIES.items()
        if name not in ("A10", "A11", "A12", "A28")
    ]
    texts = [text for text in contents if isinstance(text, str) and text]
    reasons = [None, "stop", "length", "content_filter", "tool_calls"]
    for number in range(count):
        kind = number % 5
        if kind < 2:
            yield mutate(rng, rng.choice(short))
        elif kind < 4:
            text = mutate(rng, rng.choice(texts).encode()).decode("utf-8", "surrogateescape")
            choice = {"message": {"content": text}, "finish_reason": rng.choice(reasons)}
            yield json.dumps({"choices": [choice]}).encode()
        else:
            yield rng.randbytes(rng.randrange(200))


def outcome_of(body: bytes) -> Verdict:
    envelope = parse_envelope(body)
    return parse_answer(envelope) if isinstance(envelope, Envelope) else envelope


def require_storable(verdict: Verdict, body: bytes) -> None:
    texts = [stored_raw(body)]
    if isinstance(verdict, Detection):
        assert type(verdict.detected) is bool
        assert verdict.confidence is None or 0 <= verdict.confidence <= 1
        texts += [*verdict.indicators, verdict.rationale or "", verdict.reasoning_steps or ""]
    else:
        assert isinstance(verdict, Failure)
        assert "\n" not in verdict.message
        texts.append(verdict.message)
    for text in texts:
        text.encode()
        assert "\x00" not in text


@pytest.mark.fault("A31")
def test_any_mutation_of_any_answer_gives_an_outcome_that_can_be_stored(measured: Measured, is_long: bool) -> None:
    count = 1_000_000 if is_long else 5_000
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    outcomes = Counter[str]()
    slowest_ms = 0.0
    for body in iter_bodies(random.Random(seed), count):
        began = time.thread_time()
        verdict = outcome_of(body)
        slowest_ms = max(slowest_ms, 1000 * (time.thread_time() - began))
        require_storable(verdict, body)
        outcomes["detection" if isinstance(verdict, Detection) else verdict.category.value] += 1
    assert outcomes.total() == count
    assert outcomes["detection"] > count / 100 and len(outcomes) >= 6  # the mutations reach every tier
    assert slowest_ms <= 500
    measured(f"{count:,} bodies: 0 exceptions, {len(outcomes)} kinds of outcome, the slowest {slowest_ms:.0f} ms")


@pytest.mark.fault("A31")
@given(st.binary(max_size=600))
def test_any_bytes_give_an_outcome_that_can_be_stored(body: bytes) -> None:
    require_storable(outcome_of(body), body)


@given(st.lists(st.sampled_from(TOKENS) | st.binary(max_size=4), max_size=30).map(b"".join))
def test_any_row_of_tokens_as_content_gives_an_outcome_that_can_be_stored(content: bytes) -> None:
    text = content.decode("utf-8", "surrogateescape")
    body = json.dumps({"choices": [{"message": {"content": text, "reasoning": text}}]}).encode()
    require_storable(outcome_of(body), body)
