"""Owns how a moment is written: local text as the predecessor did, UTC ISO 8601 in our own tables."""

from __future__ import annotations

from datetime import UTC, datetime


def local_now() -> str:
    """Local wall time as `YYYY-MM-DD HH:MM:SS`, the form that R readers parse."""
    return local_text(datetime.now().astimezone())


def local_text(moment: datetime) -> str:
    """An aware datetime in local time, as `YYYY-MM-DD HH:MM:SS`."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def utc_text(moment: datetime) -> str:
    """An aware datetime in UTC, ISO 8601 with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def utc_now() -> datetime:
    """The wall clock, aware, in UTC. Durations never come from it; they are monotonic."""
    return datetime.now(UTC)
