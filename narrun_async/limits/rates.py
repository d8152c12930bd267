"""Owns how many requests and tokens a minute may be sent, as the user allows and the endpoint says. Pure.

Every method takes the time it is called at, in monotonic seconds, so that the rules can be tested in virtual time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

#: an idle allowance saves up this many seconds' worth, so that work can start at once, and never a minute's worth, so
#: that a server that counts over a sliding minute is not overrun
BURST_S = 1.0


class Allowance:
    """A token bucket: taken from before a call, settled after it. It may run into debt, which is waited off.

    :param per_minute: what may be used in a minute
    """

    def __init__(self, per_minute: float, *, now: float) -> None:
        if not 0 < per_minute < math.inf:
            raise ValueError("an allowance must be above 0")
        self._per_s = per_minute / 60.0
        self._burst = max(1.0, self._per_s * BURST_S)
        self._level = self._burst
        self._updated = now

    def delay_s(self, amount: float, *, now: float) -> float:
        """Seconds until an amount may be taken; takes nothing."""
        self._refill(now)
        # An amount above the burst could otherwise never be taken; it leaves a debt.
        return max(0.0, (min(amount, self._burst) - self._level) / self._per_s)

    def take(self, amount: float, *, now: float) -> None:
        """Use an amount, whether it is there or not."""
        self._refill(now)
        self._level -= amount

    def settle(self, *, taken: float, used: float, now: float) -> None:
        """Give back what was taken and not used, or take what was used beyond that."""
        self._refill(now)
        self._level = min(self._burst, self._level + taken - used)

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._updated) * self._per_s)
        self._updated = max(self._updated, now)


class TokenEstimate:
    """What a call is likely to use, from what calls did use: an exponential mean, started by the text's length."""

    #: weight of the newest call
    WEIGHT = 0.05
    #: characters a token of English text, as a rule of thumb of the tokenizers in use
    CHARS_PER_TOKEN = 4.0

    def __init__(self) -> None:
        #: None until a call has told
        self.mean_tokens: float | None = None

    def tokens_for(self, request_bytes: int) -> float:
        if self.mean_tokens is not None:
            return self.mean_tokens
        return request_bytes / self.CHARS_PER_TOKEN

    def record(self, total_tokens: int) -> None:
        mean = self.mean_tokens
        self.mean_tokens = total_tokens if mean is None else mean + self.WEIGHT * (total_tokens - mean)


# --- what the endpoint says ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is left of a quota, and when it is full again."""

    #: None where the endpoint does not say
    limit: int | None
    remaining: int
    reset_s: float

    def refill_per_s(self) -> float:
        """The rate at which the quota fills up until it is full, at least one in the time of the reset.

        Right for quotas that refill steadily. One that refills at once, at the reset, may refuse a call sent at this
        rate; then the gate and the learnt pace have their say.
        """
        missing = 1 if self.limit is None else max(1, self.limit - self.remaining)
        return missing / self.reset_s


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def read_quota(headers: Mapping[str, str], unit: str) -> Quota | None:
    """`x-ratelimit-{limit,remaining,reset}-<unit>` of one answer; None where they say nothing usable.

    A limit that is not positive, a negative rest and a reset that is not positive mean unknown: servers send them as
    placeholders.

    :param unit: `requests` or `tokens`
    :param headers: keys in lower case
    """
    remaining = _whole(headers.get(f"x-ratelimit-remaining-{unit}"))
    if remaining is None or remaining < 0:
        return None
    limit = _whole(headers.get(f"x-ratelimit-limit-{unit}"))
    if limit is not None and limit <= 0:
        return None
    reset_s = parse_duration_s(headers.get(f"x-ratelimit-reset-{unit}") or "")
    if reset_s is None or reset_s <= 0:
        return None
    return Quota(limit=limit, remaining=remaining, reset_s=reset_s)


def parse_duration_s(text: str) -> float | None:
    """`20ms`, `1.5s`, `6m0s`, `1h2m3s`, or bare seconds; None for anything else.

    >>> parse_duration_s("6m0s")
    360.0
    """
    text = text.strip().lower()
    try:
        bare_s = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        bare_s = math.nan
    if math.isfinite(bare_s):
        return bare_s
    match = _DURATION.fullmatch(text)
    if not match or not text:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _whole(text: str | None) -> int | None:
    try:
        return int(text) if text is not None and text.isascii() and len(text) < 16 else None
    except ValueError:
        return None
