"""Owns a headless Chromium that is told what to do over a pipe, and that reports what a page did."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: nothing but what a page asks for leaves, and of that only what goes to this machine
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe"),
)
_PATIENCE_S = 30


@dataclass(kw_only=True)
class Visit:
    """What a page did while it was open."""

    #: of everything that was asked for, the page itself included
    urls: list[str] = field(default_factory=list)
    #: what a person would find in the console
    messages: list[str] = field(default_factory=list)


class Chromium:
    """One tab. Commands are those of the DevTools protocol."""

    def __init__(self, process: subprocess.Popen[bytes], to_browser: int, from_browser: int) -> None:
        self._process = process
        self._to_browser, self._from_browser = to_browser, from_browser
        self._received = b""
        self._number = 0
        self._session: str | None = None
        self.visit = Visit()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """:raises AssertionError: the browser refuses, or does not answer"""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def open(self, url: str, *, width: int, dark: bool = False, height: int = 900) -> Visit:
        """Load a page in a window of that width, and wait until it and all that it asks for has come or failed."""
        self.visit = Visit()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + _PATIENCE_S
        while self._receive(deadline, url).get("method") != "Page.loadEventFired":
            pass
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        return self.visit

    def evaluate(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return found["result"].get("value")

    def screenshot(self, path: Path, *, whole_page: bool = False) -> Path:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole_page)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def _receive(self, deadline: float, awaited: str) -> dict[str, Any]:
        """The next message; those that tell what the page did are noted on the way."""
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from_browser], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium did not answer within {_PATIENCE_S} s: {awaited}"
            chunk = os.read(self._from_browser, 1 << 16)
            assert chunk, f"Chromium ended: {awaited}"
            self._received += chunk
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.visit.urls.append(parameters["request"]["url"])
        elif method == "Log.entryAdded":
            self.visit.messages.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.visit.messages.append(str([one.get("value") for one in parameters["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.visit.messages.append(parameters["exceptionDetails"]["text"])


@contextmanager
def open_chromium(program: str, profile: Path) -> Iterator[Chromium]:
    """The browser, with a profile of its own; gone at the end."""
    for_browser, to_browser = os.pipe()
    from_browser, by_browser = os.pipe()
    # the protocol is spoken over the descriptors 3 and 4; from high numbers, for these two may be 4 and 3
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (for_browser, by_browser)]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}', program, *_FLAGS, f"--user-data-dir={profile}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=ends,
    )
    for end in ends:
        os.close(end)
    os.close(for_browser)
    os.close(by_browser)
    try:
        yield Chromium(process, to_browser, from_browser)
    finally:
        process.terminate()
        process.wait(timeout=_PATIENCE_S)
        os.close(to_browser)
        os.close(from_browser)
