"""Sends and receives on anyio's memory streams without a turn of the event loop where none is needed.

A send or receive that finds room or an item costs 0.5 µs this way and 9 µs the other; two of each fall on a narrative.
It is therefore no cancellation point. Every stage that uses it also awaits something that is: a call, a page, a commit.
"""

from __future__ import annotations

from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

Item = TypeVar("Item")


async def send(stream: MemoryObjectSendStream[Item], item: Item) -> None:
    """As `stream.send`."""
    try:
        stream.send_nowait(item)
    except anyio.WouldBlock:
        await stream.send(item)


async def receive(stream: MemoryObjectReceiveStream[Item]) -> Item:
    """As `stream.receive`."""
    try:
        return stream.receive_nowait()
    except anyio.WouldBlock:
        return await stream.receive()
