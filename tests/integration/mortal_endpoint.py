"""An endpoint whose process ends when it meets a certain text; started as a script, supervised by `MortalEndpoint`.

It must stay importable and runnable without the program, so that it starts in the time of a bare interpreter.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_ANSWER = '{"detected": false, "confidence": 0.9, "indicators": [], "rationale": "made up"}'


class MortalEndpoint:
    """A server process that dies of `poison` (or of every `dies_at`th call) and is started again, as supervisors do.

    Nothing but the poison may end it early, so the number of its deaths is that of calls with the poison.
    """

    def __init__(
        self,
        directory: Path,
        poison: Sequence[str] = (),
        *,
        latency_s: float,
        down_for_s: float = 0.2,
        dies_at: int = 0,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self._calls = directory / f"calls-{self._port}.txt"
        self._settings = json.dumps(
            {
                "port": self._port,
                "poison": list(poison),
                "latency_s": latency_s,
                "calls": str(self._calls),
                "dies_at": dies_at,
            }
        )
        self._down_for_s = down_for_s
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor")
        self.n_deaths = 0
        self.url = f"http://127.0.0.1:{self._port}/v1/chat/completions"

    def __enter__(self) -> Self:
        self._start()
        self._supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._process is not None:
            self._process.kill()
        self._supervisor.join()

    def calls(self) -> list[str]:
        """`probe`, or the whole user message, one entry a request, in the order of arrival."""
        return [json.loads(line) for line in self._calls.read_text(encoding="utf-8").splitlines()]

    def _start(self) -> None:
        command = [sys.executable, "-I", "-S", __file__, self._settings]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self._process.stdout.close()

    def _supervise(self) -> None:
        while not self._closing.is_set():
            assert self._process is not None
            self._process.wait()
            if self._closing.wait(self._down_for_s):
                return
            self.n_deaths += 1
            self._start()


# --- the server ------------------------------------------------------------------------------------------------------


async def _serve(*, port: int, poison: list[str], latency_s: float, calls: str, dies_at: int) -> None:
    log = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    n_calls = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_calls
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                request = json.loads(await reader.readexactly(length))
                is_probe = 1 in (request.get("max_tokens"), request.get("max_completion_tokens"))
                text = request["messages"][-1]["content"]
                os.write(log, json.dumps("probe" if is_probe else text).encode() + b"\n")
                n_calls += not is_probe
                if not is_probe and (any(part in text for part in poison) or n_calls == dies_at):
                    await asyncio.sleep(latency_s / 2)  # as a model that dies while it works on it
                    os._exit(1)
                await asyncio.sleep(0 if is_probe else latency_s)
                choice = {"index": 0, "message": {"role": "assistant", "content": _ANSWER}, "finish_reason": "stop"}
                body = json.dumps({"choices": [choice]}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print("ready", flush=True)
    sys.stdout.close()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(**json.loads(sys.argv[1])))
