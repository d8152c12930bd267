"""Owns how a moment is written: local text as the predecessor did, UTC ISO 8601 in our own tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache


def local_now() -> str:
    """Local wall time as `YYYY-MM-DD HH:MM:SS`, the form that R readers parse."""
    return local_text(datetime.now().astimezone())


def local_text(moment: datetime) -> str:
    """An aware datetime in local time, as `YYYY-MM-DD HH:MM:SS`."""
    return _local_text(int(moment.timestamp()))


@lru_cache(maxsize=16)
def _local_text(second: int) -> str:
    # remembered, because each row needs it and many rows share a second: 2.5 µs a row
    return datetime.fromtimestamp(second).strftime("%Y-%m-%d %H:%M:%S")


def parse_local(text: object) -> datetime | None:
    """What `local_text` wrote, here or by the predecessor; None where it is no moment."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def utc_text(moment: datetime) -> str:
    """An aware datetime in UTC, ISO 8601 with milliseconds."""
    # `astimezone` takes 0.7 µs even where there is nothing to do, and a row has two such times
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return in_utc.isoformat(timespec="milliseconds")


def utc_now() -> datetime:
    """The wall clock, aware, in UTC. Durations never come from it; they are monotonic."""
    return datetime.now(UTC)


def utc_end(started_at: datetime, duration_s: float) -> datetime:
    """The wall clock, but never earlier than a monotonic duration after the start: it may have been set back since."""
    return max(utc_now(), started_at + timedelta(seconds=duration_s))
