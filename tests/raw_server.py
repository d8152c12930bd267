"""Owns the servers of the network tests: bytes on a real socket, just as a test wants them, and what came of it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

COMPLETION = (
    b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content":'
    b' "{\\"detected\\": true, \\"confidence\\": 0.9, \\"indicators\\": [], \\"rationale\\": \\"r\\"}"}}]}'
)


class Server:
    """A raw server in the loop of the test: keeps what it was sent and how many connections came."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.n_connections = 0
        self.n_closed = 0
        self.port = 0

    @property
    def n_open(self) -> int:
        return self.n_connections - self.n_closed

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                n_bytes = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                self.requests.append(head + await reader.readexactly(n_bytes))
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.n_closed += 1
            writer.close()


@asynccontextmanager
async def serving(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0, ssl=tls, backlog=1024)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()


def writing(*parts: bytes, then_close: bool = True) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then_close:
            raise ConnectionError

    return answer


def reply(body: bytes = b"{}", *, status: str = "200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status.encode(), len(body), headers, body)


async def reset_connection(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST instead of FIN.

    :raises ConnectionError: always, so that the server is through with it
    """
    await asyncio.sleep(0.01)  # what was written before is on its way
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionError


# --- what a fault does to this process -------------------------------------------------------------------------------


class LoopLag:
    """How late the event loop comes back to somebody who asked for a short pause.

    Time in which the machine did not let this thread run at all (`/proc/.../schedstat`) is taken off: it says how busy
    the machine is, not how busy the loop.
    """

    PAUSE_S = 0.005

    def __init__(self) -> None:
        self._lags_s: list[float] = []

    def p99_ms(self) -> float:
        ranked = sorted(self._lags_s)
        return 1000 * ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)]

    def worst_ms(self) -> float:
        return 1000 * max(self._lags_s)

    async def watch(self) -> None:
        statistics = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        while True:
            kept_waiting_ns, began = _kept_waiting_ns(statistics), time.monotonic()
            await asyncio.sleep(self.PAUSE_S)
            late_s = time.monotonic() - began - self.PAUSE_S
            self._lags_s.append(max(0.0, late_s - (_kept_waiting_ns(statistics) - kept_waiting_ns) / 1e9))


def _kept_waiting_ns(statistics: Path) -> int:
    return int(statistics.read_text().split()[1]) if statistics.exists() else 0


@asynccontextmanager
async def watching_lag() -> AsyncIterator[LoopLag]:
    lag = LoopLag()
    watcher = asyncio.create_task(lag.watch())
    try:
        yield lag
    finally:
        await asyncio.sleep(2 * LoopLag.PAUSE_S)  # what came last shows only after it
        watcher.cancel()


def open_sockets() -> int:
    """Sockets among the descriptors of this process."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found += str(descriptor.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


def peak_memory_bytes() -> int:
    """The most resident memory of this process since `forget_peak_memory`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no VmHWM in /proc/self/status")


def forget_peak_memory() -> int:
    """:returns: resident memory now, from which the peak is counted from now on"""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory_bytes()
