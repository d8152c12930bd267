"""Owns a chat completions server that repeats whatever it is sent, in every place where an answer can carry words.

It runs in a thread of the test. What it does with a narrative is told by a word `do-<mode>` in the text, and by
`everybody` for all of them.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: status, headers, body
Answer = tuple[int, Mapping[str, str], bytes]


class TalkativeEndpoint:
    """What it was sent, and how it answers."""

    def __init__(self, answers: Mapping[str, Callable[[str, Mapping[str, Any]], Answer]]) -> None:
        self._answers = answers
        #: mode for every narrative, whatever its text says; probes are answered well
        self.everybody: str | None = None
        self.requests: list[Mapping[str, Any]] = []
        self.url = ""

    def answer(self, authorization: str, request: Mapping[str, Any]) -> Answer:
        self.requests.append(request)
        text = request["messages"][-1]["content"]
        asked = re.search(r"do-([a-z0-9-]+)", text)
        mode = self.everybody or (asked.group(1) if asked else "well")
        words = f"{authorization.removeprefix('Bearer ')} {text}"
        return self._answers[mode](words, request)


def chat(content: str, **envelope: Any) -> bytes:
    """A chat completion."""
    message = {"role": "assistant", "content": content} | envelope.pop("message", {})
    choice = {"index": 0, "finish_reason": "stop", "message": message} | envelope.pop("choice", {})
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return json.dumps({"id": "1", "model": "test-model", "choices": [choice], "usage": usage} | envelope).encode()


@contextmanager
def talkative_endpoint(
    answers: Mapping[str, Callable[[str, Mapping[str, Any]], Answer]],
) -> Iterator[TalkativeEndpoint]:
    endpoint = TalkativeEndpoint(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, body = endpoint.answer(self.headers.get("Authorization", ""), request)
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | dict(headers)).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            return  # a client that hangs up is no failure of the test

    with Server(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()
