"""Starts llama.cpp's server as a process, kills it, starts it again where it was, and asks it without the program."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness import Process, clean_environment

#: answers that are written at a time
SLOTS = 4
#: context of one slot
SLOT_TOKENS = 2048

_SCRIPT = Path(__file__).with_name("llama_server.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server sent."""

    status: int
    #: keys in lower case
    headers: Mapping[str, str]
    body: Any

    @property
    def error(self) -> Mapping[str, Any]:
        return dict(self.body["error"])


class LlamaServer:
    """One server on one port, over as many processes as it takes; it ends with its context, or with its starter."""

    def __init__(
        self,
        model: Path,
        directory: Path,
        *,
        shared: bool = False,
        api_key: str | None = None,
    ) -> None:
        """:param shared: the slots share the context of one, as `llama-server` does where it is told no number"""
        directory.mkdir(parents=True, exist_ok=True)
        self._model = model
        self._directory = directory
        self._shared = shared
        self._api_key = api_key
        self._port = 0
        self._life = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self, *, slot_tokens: int = SLOT_TOKENS) -> None:
        """A new process on the same port, where there was one; returns when it answers."""
        flags = [f"--port={self._port}", f"--slots={SLOTS}", f"--slot-tokens={slot_tokens}"]
        flags += ["--shared"] if self._shared else []
        flags += [] if self._api_key is None else [f"--api-key={self._api_key}"]
        process = self._life.enter_context(
            Process(
                [sys.executable, str(_SCRIPT), str(self._model), *flags],
                cwd=self._directory,
                environment=clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        address = process.stdout.readline().decode().strip()
        assert address.startswith("http://127.0.0.1:"), f"the server did not start:\n{process.read_err()}"
        self._port = int(address.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self._life.close()

    def ask(self, path: str, body: object = None, *, api_key: str | None = None) -> Reply:
        """One request past the program: POST with a body, GET without."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        with closing(self.connect()) as connection:
            if body is None:
                connection.request("GET", path, headers=headers)
            else:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                connection.request("POST", path, content, headers)
            answer = connection.getresponse()
            lowered = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(status=answer.status, headers=lowered, body=json.loads(answer.read()))

    def connect(self) -> HTTPConnection:
        """A connection that is kept for as long as the server keeps it."""
        return HTTPConnection("127.0.0.1", self._port, timeout=60)

    def chat(self, text: str, **fields: object) -> Reply:
        """One completion; `fields` join the request."""
        return self.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})
