"""Owns how a remaining set is cut into batch files: as many requests and bytes as a provider takes, no more. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from narrun_async.errors import UsageError

#: of one file; OpenAI's limits, which other providers copied (Azure allows 100,000 requests)
MAX_REQUESTS = 50_000
#: 200 MB, whichever way megabytes are counted
MAX_BYTES = 200_000_000
#: a narrative may have 4 MiB, and a character of it six bytes in JSON
SMALLEST_MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLimits:
    """How large a batch file may become."""

    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        if not 1 <= self.max_requests <= MAX_REQUESTS:
            raise UsageError(f"--max-requests must be from 1 to {MAX_REQUESTS:,}")
        if not SMALLEST_MAX_BYTES <= self.max_bytes <= MAX_BYTES:
            raise UsageError(f"--max-bytes must be from {SMALLEST_MAX_BYTES:,} to {MAX_BYTES:,}")

    def takes(self, n_bytes: int, *, n_requests_before: int, n_bytes_before: int) -> bool:
        """Whether a file that holds so much already has room for one more request."""
        return n_requests_before < self.max_requests and n_bytes_before + n_bytes <= self.max_bytes
