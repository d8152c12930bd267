"""How a simulated endpoint behaves: every knob of it as one frozen value, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from narrun_async.errors import UsageError


class Fault(StrEnum):
    """What can be wrong with one answer."""

    #: 400: this request, always
    HTTP_400 = "http_400"
    #: 429 with Retry-After
    HTTP_429 = "http_429"
    HTTP_500 = "http_500"
    HTTP_503 = "http_503"
    #: the connection is held and never answered
    TIMEOUT = "timeout"
    #: the connection is reset in the middle of the answer
    RESET = "reset"
    #: 200, and the answer is prose without any JSON
    MALFORMED = "malformed"
    #: 200, finish_reason `length`, the JSON cut in the middle
    TRUNCATED = "truncated"
    #: 200, the refusal field instead of content
    REFUSAL = "refusal"


#: drawn anew for every attempt, so that they go away on retry
TRANSIENT_FAULTS = (Fault.HTTP_429, Fault.HTTP_500, Fault.HTTP_503, Fault.TIMEOUT, Fault.RESET)
#: drawn once for a narrative, so that results are the same after any number of kills and restarts
LASTING_FAULTS = (Fault.HTTP_400, Fault.MALFORMED, Fault.TRUNCATED, Fault.REFUSAL)


class LatencyModel(StrEnum):
    """What a request waits for."""

    #: every request takes its own time, however many there are
    FIXED = "fixed"
    #: `slots` requests are served at a time, the rest queue in order of arrival
    SLOTS = "slots"
    #: all are served together and slow each other down, as in continuous batching
    BATCHING = "batching"


class FormatHandling(StrEnum):
    """What becomes of a `response_format`."""

    #: the answer is what was asked for
    BIND = "bind"
    #: taken without a word, and without effect
    IGNORE = "ignore"
    #: 400
    REFUSE = "refuse"
    #: 200, and the answer is neither JSON nor prose
    GARBLE = "garble"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Every knob of a simulated endpoint.

    :raises ValueError: a value makes no sense; the message names the knob
    """

    #: decides answers, faults and latencies together with the text of a request
    seed: int = 0
    #: the model that says it answers
    model_name: str = "simulated-keyword-rule"
    #: any other model gets 404; empty: every model name is taken
    known_models: tuple[str, ...] = ()
    #: the key that is asked for; None: none is
    auth_key: str | None = field(default=None, repr=False)
    #: the header in which it is looked for; `bearer`: in Authorization
    auth_header: str = "bearer"
    #: query parameters without which chat completions get 404
    required_query: Mapping[str, str] = field(default_factory=dict)
    #: type of a `response_format` → what becomes of it; others are ignored
    response_formats: Mapping[str, str] = field(default_factory=dict)
    #: request parameters that get 400
    unsupported_parameters: tuple[str, ...] = ()
    #: a longer prompt (all messages together) gets 400 context_length_exceeded
    max_prompt_chars: int | None = None

    latency_model: LatencyModel = LatencyModel.FIXED
    #: mean time to serve one request
    latency_ms: float = 0.0
    #: latencies lie evenly in mean * (1 - spread, 1 + spread); 0 to 1
    latency_spread: float = 0.2
    #: requests served at a time in the slots model
    slots: int = 4
    #: batching model: each further request in flight adds this share of the mean latency
    batch_slowdown: float = 0.02
    #: batching model: memory holds so many requests, and more in flight evict each other; None: it holds any number
    thrash_above: int | None = None
    #: throughput with `thrash_above` in flight, as a multiple of what is left beyond; 1 or more
    thrash_slowdown: float = 3.0
    #: requests beyond this rate get 429 (a second's worth may come at once); None: no limit
    requests_per_s: float | None = None
    #: a refused request uses up the rate like any other, so who does not wait is never let in
    refused_calls_count: bool = False
    #: Retry-After of the http_429 and http_503 faults; None: the header is absent
    retry_after_s: float | None = 1.0

    #: share of requests (transient faults) or of narratives (lasting faults); 0 to 1
    fault_rates: Mapping[str, float] = field(default_factory=dict)
    #: a text that contains the key always meets the fault
    always: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: share of the malformed answers that are sound when the request ends with the reminder of a second try; 0 to 1
    mend_rate: float = 0.0
    #: truncated answers come whole where the request allows so many tokens; None: they never do
    enough_tokens: int | None = None
    #: share of narratives whose answer contradicts the keyword rule; 0 to 1
    flip_rate: float = 0.03

    def __post_init__(self) -> None:
        LatencyModel(self.latency_model)
        for name in ("latency_spread", "flip_rate", "mend_rate"):
            _require_share(name, getattr(self, name))
        for name, rate in self.fault_rates.items():
            _require_share(f"rate of {Fault(name)}", rate)
        for fault in self.always.values():
            Fault(fault)
        for handling in self.response_formats.values():
            FormatHandling(handling)
        for name in ("latency_ms", "batch_slowdown", "max_prompt_chars", "retry_after_s"):
            _require_number(name, getattr(self, name), optional=name in ("max_prompt_chars", "retry_after_s"))
        for name in ("slots", "thrash_above", "thrash_slowdown", "enough_tokens"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < math.inf:
                raise ValueError(f"{name} must be at least 1")
        if self.requests_per_s is not None and not self.requests_per_s > 0:
            raise ValueError("requests_per_s must be above 0")
        if self.refused_calls_count not in (True, False):
            raise ValueError("refused_calls_count must be true or false")

    def changed(self, changes: Mapping[str, object]) -> Behaviour:
        """This behaviour with some knobs set anew.

        :raises ValueError: an unknown knob, or a value that makes no sense
        """
        unknown = sorted(set(changes) - {knob.name for knob in fields(self)})
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
        try:
            return replace(self, **values)  # type: ignore[arg-type]  # checked when it is made
        except (TypeError, AttributeError) as error:
            raise ValueError("a value has the wrong type") from error


def parse_fault_rates(texts: Iterable[str]) -> dict[str, float]:
    """`http_500=0.02` and its like, as they stand on a command line.

    :raises UsageError: not NAME=SHARE, an unknown fault, or a share outside 0 to 1
    """
    rates: dict[str, float] = {}
    for text in texts:
        name, _, share = text.partition("=")
        try:
            rate = float(share)
            _require_share(name, rate)
            rates[Fault(name.strip())] = rate
        except ValueError:
            raise UsageError(
                f"{text!r} is not FAULT=SHARE with a share from 0 to 1",
                advice=f"the faults are {', '.join(Fault)}",
            ) from None
    return rates


# `object`, because knobs also come as JSON.
def _require_share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1")


def _require_number(name: str, value: object, *, optional: bool) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number, 0 or more")
