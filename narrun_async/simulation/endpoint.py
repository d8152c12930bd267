"""A simulated OpenAI-compatible endpoint on a real socket: its life, its routes, and switching it off and on.

It knows nothing of the run that calls it, so it can live in the run's own event loop or in another process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from narrun_async.simulation.answers import error_body, model_list
from narrun_async.simulation.batch_behaviour import BatchBehaviour
from narrun_async.simulation.batches import BatchDesk
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.simulation.calls import CallCounts, Calls
from narrun_async.simulation.chat import RefusedError, parse_chat, require_key, require_query
from narrun_async.simulation.http_server import Connection, Request

_COMPLETIONS = "/chat/completions"
CHAT_PATH = f"/v1{_COMPLETIONS}"
#: Azure's two forms, `/openai/deployments/NAME` and `/openai/v1`, are served like the plain one
AZURE_PREFIX = "/openai/"
#: connections that wait to be accepted; a burst of them must not be dropped
_BACKLOG = 4096
#: time for the answer to "go down" to leave before its connection is reset
_GOODBYE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStats(CallCounts):
    """What the endpoint has seen since it was made."""

    #: client connections now; over HTTP the one that asks is not counted
    open_connections: int
    #: client connections ever
    connections: int


class SimulatedEndpoint:
    """An endpoint on `host:port` (0: any free port) while its context is open; made to be used once.

    Leaving the context resets every connection.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        record_path: Path | None = None,
        heads_path: Path | None = None,
    ) -> None:
        """:param record_path: bodies of understood chat requests go there, one JSON line each; it holds prompts
        :param heads_path: their paths, queries and header fields go there, the key left out
        """
        self._host = host
        self._port = port
        self._record_path = record_path
        self._record: IO[str] | None = None
        self._heads_path = heads_path
        self._heads: IO[str] | None = None
        self._server: asyncio.Server | None = None
        #: keeps the port, without listening, while the endpoint is down
        self._placeholder: socket.socket | None = None
        self._coming_up: asyncio.Task[None] | None = None
        self._connections: set[Connection] = set()
        self._n_connections = 0
        self._calls = Calls(behaviour)
        self._batches = BatchDesk(lambda: self.behaviour)

    async def __aenter__(self) -> Self:
        await self._listen(_bound_socket(self._host, self._port))
        if self._record_path is not None:
            self._record = _open_record(self._record_path)
        if self._heads_path is not None:
            self._heads = _open_record(self._heads_path)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._coming_up is not None:
            self._coming_up.cancel()
        self._stop_listening()
        if self._placeholder is not None:
            self._placeholder.close()
        # A reset connection closes its socket in the next turn of the loop.
        await asyncio.sleep(0)
        for record in (self._record, self._heads):
            if record is not None:
                record.close()

    @property
    def port(self) -> int:
        return self._port

    @property
    def base_url(self) -> str:
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    @property
    def url(self) -> str:
        """The full URL of chat completions."""
        return self.base_url + CHAT_PATH

    @property
    def batches(self) -> BatchDesk:
        """Its Batch API."""
        return self._batches

    @property
    def behaviour(self) -> Behaviour:
        return self._calls.behaviour

    def change_behaviour(self, **changes: object) -> None:
        """Set some knobs anew, for every request from now on.

        :raises ValueError: an unknown knob, or a value that makes no sense
        """
        self._calls.behaviour = self._calls.behaviour.changed(changes)

    def stats(self) -> EndpointStats:
        counts = asdict(self._calls.counts())
        return EndpointStats(**counts, open_connections=len(self._connections), connections=self._n_connections)

    async def go_down(self) -> None:
        """Refuse new connections and reset the open ones, calls in flight included. Safe to repeat."""
        self._go_down()

    async def come_up(self) -> None:
        """Listen again on the same port. Safe to repeat."""
        placeholder, self._placeholder = self._placeholder, None
        if placeholder is not None:
            await self._listen(placeholder)

    # --- what http_server.Application asks for -------------------------------------------------------------------

    def connection_opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._n_connections += 1

    def connection_closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def request_arrived(self, connection: Connection, request: Request) -> None:
        is_chat = request.path.startswith(AZURE_PREFIX) and request.path.endswith(_COMPLETIONS)
        route = _ROUTES.get((request.method, CHAT_PATH if is_chat else request.path))
        if route is None and self._batches.request_arrived(connection, request):
            return
        if route is None:
            connection.reply(404, error_body("No such route.", kind="invalid_request_error"))
            return
        try:
            route(self, connection, request)
        except RefusedError as refused:
            if request.path.endswith(_COMPLETIONS):
                self._calls.refused(refused.status)
            connection.reply(refused.status, refused.body)

    # --- routes ----------------------------------------------------------------------------------------------------

    def _post_chat(self, connection: Connection, request: Request) -> None:
        require_key(self.behaviour, request.headers)
        require_query(self.behaviour, request.query)
        chat = parse_chat(self.behaviour, request.body)
        if self._record is not None:
            self._record.write(json.dumps(json.loads(request.body)) + "\n")
        if self._heads is not None:
            self._heads.write(json.dumps(_head(request, self.behaviour)) + "\n")
        self._calls.begin(connection, chat)

    def _get_models(self, connection: Connection, request: Request) -> None:
        require_key(self.behaviour, request.headers)
        connection.reply(200, model_list(self.behaviour.known_models or (self.behaviour.model_name,)))

    def _get_stats(self, connection: Connection, request: Request) -> None:
        stats = asdict(self.stats())
        stats["open_connections"] -= 1
        connection.reply(200, json.dumps(stats).encode())

    def _post_behaviour(self, connection: Connection, request: Request) -> None:
        """Knobs of `Behaviour`; also `"down": true`, with `"down_for_s"` to come up again after so long."""
        try:
            changes = dict(json.loads(request.body))
            down = bool(changes.pop("down", False))
            down_for_s = changes.pop("down_for_s", None)
            pause_s = None if down_for_s is None else float(down_for_s)
            self.change_behaviour(**changes)
        except (TypeError, ValueError) as error:
            raise RefusedError(400, str(error)) from error
        connection.reply(200, b"{}")
        if down:
            asyncio.get_running_loop().call_later(_GOODBYE_S, self._go_down, pause_s)

    # --- the socket --------------------------------------------------------------------------------------------------

    async def _listen(self, bound: socket.socket) -> None:
        self._port = bound.getsockname()[1]
        make_connection = partial(Connection, self)
        self._server = await asyncio.get_running_loop().create_server(make_connection, sock=bound, backlog=_BACKLOG)

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in tuple(self._connections):
            connection.reset()

    def _go_down(self, pause_s: float | None = None) -> None:
        if self._server is not None:
            self._stop_listening()
            # Connecting to a bound socket that does not listen is refused, and nobody else gets the port meanwhile.
            self._placeholder = _bound_socket(self._host, self._port)
        if self._coming_up is not None:
            self._coming_up.cancel()
        if pause_s is not None:
            self._coming_up = asyncio.get_running_loop().create_task(self._come_up_after(pause_s))

    async def _come_up_after(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        await self.come_up()


_ROUTES: dict[tuple[str, str], Callable[[SimulatedEndpoint, Connection, Request], None]] = {
    ("POST", CHAT_PATH): SimulatedEndpoint._post_chat,
    ("GET", "/v1/models"): SimulatedEndpoint._get_models,
    ("GET", "/simulation/stats"): SimulatedEndpoint._get_stats,
    ("POST", "/simulation/behaviour"): SimulatedEndpoint._post_behaviour,
}


async def serve(
    behaviour: Behaviour,
    *,
    on_ready: Callable[[str], None],
    host: str = "127.0.0.1",
    port: int = 0,
    record_path: Path | None = None,
    batch_knobs: BatchBehaviour | None = None,
    heads_path: Path | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; SIGUSR1 takes the endpoint down, SIGUSR2 up again.

    :param on_ready: called with the URL of chat completions once connections are accepted
    :raises OSError: the port is taken
    """
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    for number in watched:
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        records = {"record_path": record_path, "heads_path": heads_path}
        async with SimulatedEndpoint(behaviour, host=host, port=port, **records) as endpoint:
            endpoint.batches.knobs = batch_knobs or endpoint.batches.knobs
            on_ready(endpoint.url)
            while (number := await signals.get()) in (signal.SIGUSR1, signal.SIGUSR2):
                await (endpoint.go_down() if number is signal.SIGUSR1 else endpoint.come_up())
    finally:
        for number in watched:
            loop.remove_signal_handler(number)


def _bound_socket(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _head(request: Request, behaviour: Behaviour) -> dict[str, object]:
    """Where a request went and with which header fields, without the key."""
    credentials = {b"authorization", behaviour.auth_header.lower().encode()}
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
    for name in credentials & request.headers.keys():
        fields[name.decode()] = "[key]"
    return {"path": request.path, "query": request.query, "headers": fields}


def _open_record(path: Path) -> IO[str]:
    """Appends line by line; readable by the owner only, as it holds prompts."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "a", encoding="utf-8", buffering=1)
