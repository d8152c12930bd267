"""A fast endpoint in a process of its own: one fixed chat completion after a given latency, over kept connections.

`python -m bench.endpoint --latency-ms 50` prints its URL and serves until its standard input is closed.
`python -m bench.endpoint --check` measures what it can serve, so that nobody mistakes its limits for the program's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import selectors
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

_ANSWER = {
    "detected": True,
    "confidence": 0.9,
    "indicators": ["former partner named", "earlier threats"],
    "rationale": "The benchmark endpoint gives this one answer to every request; it means nothing.",
}
_COMPLETION = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "bench-model",
    "system_fingerprint": "fp_bench",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": json.dumps(_ANSWER)}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 700, "completion_tokens": 60, "total_tokens": 760},
}


def _http_ok(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


_REPLY = _http_ok(json.dumps(_COMPLETION).encode("ascii"))
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    """Answers POST with the completion and GET with the number of completions asked for so far."""

    n_served = 0

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        pending = self._pending + data if self._pending else data
        while (head_end := pending.find(b"\r\n\r\n")) >= 0:
            length = _CONTENT_LENGTH.search(pending, 0, head_end)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(pending) < end:
                break
            self._answer(is_completion=pending.startswith(b"POST"))
            pending = pending[end:]
        self._pending = pending

    def _answer(self, *, is_completion: bool) -> None:
        if not is_completion:
            self._transport.write(_http_ok(b"%d" % _Connection.n_served))
            return
        _Connection.n_served += 1
        if self._latency_s:
            self._loop.call_later(self._latency_s, self._transport.write, _REPLY)
        else:
            self._transport.write(_REPLY)


async def _serve(latency_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(latency_s), "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/v1/chat/completions", flush=True)
    starter_left = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), starter_left.set)
    await starter_left.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointProcess:
    """The endpoint, seen from the program that started it."""

    process: subprocess.Popen[str]
    url: str

    def n_served(self) -> int:
        with urllib.request.urlopen(self.url, timeout=10) as answer:
            return int(answer.read())

    def cpu_s(self) -> float:
        """User and system time so far, to a hundredth of a second."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / 100

    def stop(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


def start_endpoint(latency_ms: float) -> EndpointProcess:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.endpoint", "--latency-ms", str(latency_ms)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return EndpointProcess(process=process, url=process.stdout.readline().strip())


# --- what it can serve -----------------------------------------------------------------------------------------------


def _drive(port: int, *, connections: int, duration_s: float, request_bytes: int) -> int:
    """A client as cheap as Python allows: plain sockets, one request at a time on each. Returns answers received."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Length: {request_bytes}\r\n\r\n"
    request = head.encode("ascii") + b"x" * request_bytes
    n_answers = 0
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    with selectors.DefaultSelector() as ready:
        for one in sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready.register(one, selectors.EVENT_READ)
            one.sendall(request)
        until = time.monotonic() + duration_s
        while time.monotonic() < until:
            for key, _ in ready.select(timeout=1):
                assert isinstance(key.fileobj, socket.socket)
                # the reply is smaller than a segment of the loopback device, so it comes whole
                assert len(key.fileobj.recv(65_536)) == len(_REPLY)
                n_answers += 1
                key.fileobj.sendall(request)
    for one in sockets:
        one.close()
    return n_answers


def check(*, connections: int = 128, duration_s: float = 5.0, request_bytes: int = 4_000) -> dict[str, float]:
    """What the endpoint serves at latency 0. Its own CPU is the figure that does not depend on the client."""
    endpoint = start_endpoint(0)
    try:
        port = int(endpoint.url.split(":")[2].split("/")[0])
        cpu_before_s, own_before = endpoint.cpu_s(), resource.getrusage(resource.RUSAGE_SELF)
        started = time.monotonic()
        n_answers = _drive(port, connections=connections, duration_s=duration_s, request_bytes=request_bytes)
        wall_s = time.monotonic() - started
        cpu_s, own = endpoint.cpu_s() - cpu_before_s, resource.getrusage(resource.RUSAGE_SELF)
    finally:
        endpoint.stop()
    client_cpu_s = own.ru_utime + own.ru_stime - own_before.ru_utime - own_before.ru_stime
    return {
        "request_bytes": request_bytes,
        "requests_per_s": round(n_answers / wall_s),
        "requests_per_core_s": round(n_answers / cpu_s),
        "endpoint_cpu_us_per_request": round(cpu_s / n_answers * 1e6, 1),
        "client_cpu_us_per_request": round(client_cpu_s / n_answers * 1e6, 1),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--latency-ms", type=float, default=0.0)
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("--request-bytes", type=int, default=4_000, help="size of the requests of --check")
    given = arguments.parse_args()
    if given.check:
        print(json.dumps(check(request_bytes=given.request_bytes), indent=1))
    else:
        asyncio.run(_serve(given.latency_ms / 1000))


if __name__ == "__main__":
    main()
