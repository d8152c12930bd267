"""Keeps the key out of what a server sends back piece by piece: servers repeat requests, and downloads are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

PLACEHOLDER = b"[key]"


class Redaction:
    """Passes pieces on with `[key]` for every form of the key, also where one lies across two pieces.

    :param write: takes the pieces
    :param secrets: the key in every form in which it may be repeated
    """

    def __init__(self, write: Callable[[bytes], None], secrets: Sequence[bytes]) -> None:
        self._write = write
        self._secrets = secrets
        #: what may be the beginning of a key: shorter than the longest by one byte
        self._held = b""
        self._n_held = max((len(secret) for secret in secrets), default=1) - 1

    def write(self, piece: bytes) -> None:
        """Take a piece; the end of it may be passed on with the next one only."""
        text = self._held + piece
        for secret in self._secrets:
            text = text.replace(secret, PLACEHOLDER)
        cut = max(0, len(text) - self._n_held)
        self._held = text[cut:]
        if cut:
            self._write(text[:cut])

    def finish(self) -> None:
        """Pass on what is left; no piece comes after it."""
        held, self._held = self._held, b""
        if held:
            self._write(held)
