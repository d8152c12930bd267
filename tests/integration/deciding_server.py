"""Owns a raw server that decides on every call by its text, and a provider for it."""

from __future__ import annotations

import asyncio
import json
import ssl
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from raw_server import COMPLETION, Server, reply, reset_connection, serving

from narrun_async.providers.openai_compatible import OpenAICompatibleProvider

#: what a server does with a call: (number of the call from 1, its text, how often that text came) → its bytes
Decide = Callable[[int, str, int], bytes]

SOUND = reply(COMPLETION)
#: after these bytes the connection is reset
RESET = b"reset"
#: … or closed
CLOSE = b"close"
SILENCE = b"silence"


class Decider:
    """A server that decides on each call by itself; probes are told apart and get the same treatment."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self.url = ""
        self.texts = Counter[str]()
        self.n_probes = 0

    @property
    def n_calls(self) -> int:
        return self.texts.total()

    async def answer(self, server: Server, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # With several connections, the request that came last is the one that is answered: nothing is awaited between.
        request = json.loads(server.requests[-1].partition(b"\r\n\r\n")[2])
        if 1 in (request.get("max_tokens"), request.get("max_completion_tokens")):
            self.n_probes += 1
            sent = self._decide(0, "", self.n_probes)
        else:
            text = request["messages"][-1]["content"]
            self.texts[text] += 1
            sent = self._decide(self.n_calls, text, self.texts[text])
        if sent == SILENCE:
            await asyncio.sleep(30)
        writer.write(sent.removesuffix(RESET).removesuffix(CLOSE))
        await writer.drain()
        if sent.endswith(RESET):
            await reset_connection(writer)
        if sent.endswith(CLOSE):
            raise ConnectionError


@asynccontextmanager
async def deciding(
    decide: Decide, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Decider, OpenAICompatibleProvider]]:
    decider = Decider(decide)
    servers = list[Server]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await decider.answer(servers[0], reader, writer)

    async with serving(answer, tls=tls) as server:
        servers.append(server)
        decider.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.port}/v1"
        provider = OpenAICompatibleProvider(url=decider.url, api_key=None)
        try:
            yield decider, provider
        finally:
            await provider.aclose()


def share(text: str, attempt: int) -> float:
    """A number in [0, 1) that stays with an attempt of a text."""
    return zlib.crc32(f"{attempt}:{text}".encode()) / 2**32
