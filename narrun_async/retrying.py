"""Decides what a failed call means and when to try again. Pure: it never sleeps, sends or stores."""

from __future__ import annotations

from enum import StrEnum


class CallProblem(StrEnum):
    """Why a call brought no HTTP answer."""

    #: refused, no route, DNS: the narrative never left this machine
    UNREACHABLE = "unreachable"
    #: certificate or handshake
    TLS = "tls"
    #: the address dialled is not allowed (design §10)
    EGRESS = "egress"
    #: reset, closed early, or bytes that are no HTTP
    CONNECTION_LOST = "connection_lost"
    #: the body passed the size cap
    TOO_LARGE = "too_large"


class CallError(Exception):
    """No HTTP answer came. Raised by providers, judged by the caller."""

    def __init__(self, problem: CallProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem
        #: one sentence, without request or answer text
        self.message = message
