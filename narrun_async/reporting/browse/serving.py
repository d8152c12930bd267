"""Serves the pages on 127.0.0.1 until it is told to stop."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import uvicorn

from narrun_async.reporting.browse.guard import SECRET, Guard
from narrun_async.reporting.browse.metadata import DATABASE, Shown
from narrun_async.reporting.browse.site import Copy, make_site

#: how long a page that is being sent may hold up the end
_LAST_PAGE_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The way in."""

    port: int
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"http://127.0.0.1:{self.port}/{DATABASE}?{SECRET}={self.secret}"


async def serve_site(copy: Copy, shown: Shown, *, port: int, on_ready: Callable[[Link], None]) -> None:
    """Until SIGINT or SIGTERM. Nothing is written anywhere.

    :param copy: has been freshened
    :param port: 0 takes a free one
    :raises OSError: the port is taken
    """
    with socket.create_server(("127.0.0.1", port)) as listener:
        link = Link(port=listener.getsockname()[1], secret=secrets.token_urlsafe(24))
        guard = Guard(make_site(copy, shown), secret=link.secret, port=link.port, freshen=copy.freshen)
        config = uvicorn.Config(
            guard,
            lifespan="off",
            ws="none",
            http="h11",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_LAST_PAGE_S,
        )
        server = _Server(config)
        async with anyio.create_task_group() as group:
            group.start_soon(_stop_at_signal, server)
            on_ready(link)
            await server.serve(sockets=[listener])
            group.cancel_scope.cancel()


class _Server(uvicorn.Server):
    """Leaves signals to us: stopping is how this command ends, not how it fails."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _stop_at_signal(server: uvicorn.Server) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            server.should_exit = True
