"""Promises of sending and receiving without a turn of the loop: order, capacity, ends, and waking whoever waits."""

from __future__ import annotations

import asyncio
from collections import Counter

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from hypothesis import given, settings
from hypothesis import strategies as st

from narrun_async.streams import receive, send


async def let_others_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def send_all(stream: MemoryObjectSendStream[int], numbers: list[int]) -> None:
    async with stream:
        for number in numbers:
            await send(stream, number)


async def receive_all(stream: MemoryObjectReceiveStream[int], into: list[int]) -> None:
    async with stream:
        try:
            while True:
                into.append(await receive(stream))
        except anyio.EndOfStream:
            pass


@pytest.mark.parametrize("capacity", [0, 1, 3, 100])
async def test_items_arrive_once_and_in_order_however_small_the_buffer(capacity: int) -> None:
    sending, receiving = anyio.create_memory_object_stream[int](capacity)
    arrived = list[int]()
    async with asyncio.timeout(5), anyio.create_task_group() as group:
        group.start_soon(receive_all, receiving, arrived)
        group.start_soon(send_all, sending, list(range(50)))
    assert arrived == list(range(50))


async def test_a_full_stream_makes_the_sender_wait_until_there_is_room() -> None:
    sending, receiving = anyio.create_memory_object_stream[int](1)
    async with sending, receiving:
        await send(sending, 1)
        waiting = asyncio.create_task(send(sending, 2))
        await let_others_run()
        assert not waiting.done()
        assert await receive(receiving) == 1
        await asyncio.wait_for(waiting, 1)
        assert await receive(receiving) == 2


async def test_whoever_waits_for_an_item_is_woken_by_one_that_is_sent_at_once() -> None:
    sending, receiving = anyio.create_memory_object_stream[int](1)
    async with sending, receiving:
        waiting = asyncio.create_task(receive(receiving))
        await let_others_run()
        await send(sending, 7)
        assert await asyncio.wait_for(waiting, 1) == 7


async def test_nobody_is_overtaken_by_a_sender_that_comes_later() -> None:
    sending, receiving = anyio.create_memory_object_stream[int](0)
    async with sending, receiving:
        waiting = [asyncio.create_task(send(sending, number)) for number in range(3)]
        await let_others_run()
        arrived = [await receive(receiving) for _ in range(3)]
        await asyncio.gather(*waiting)
        assert arrived == [0, 1, 2]


async def test_the_end_of_a_stream_and_a_receiver_that_is_gone_are_told() -> None:
    sending, receiving = anyio.create_memory_object_stream[int](1)
    async with receiving:
        await send(sending, 1)
        await sending.aclose()
        assert await receive(receiving) == 1
        with pytest.raises(anyio.EndOfStream):
            await receive(receiving)
    sending, receiving = anyio.create_memory_object_stream[int](1)
    async with sending:
        await receiving.aclose()
        with pytest.raises(anyio.BrokenResourceError):
            await send(sending, 1)


async def test_what_is_there_is_received_after_a_deadline_has_passed_and_nothing_is_lost() -> None:
    """The writer gathers a batch in this way: its deadline must not swallow an item."""
    sending, receiving = anyio.create_memory_object_stream[int](100)
    arrived = list[int]()
    async with sending, receiving:
        for turn in range(50):
            asyncio.get_running_loop().call_later(0.001, sending.send_nowait, turn)
            with anyio.move_on_after(0.001):
                arrived.append(await receive(receiving))
            await asyncio.sleep(0.0005)
        await asyncio.sleep(0.01)
        while len(arrived) < 50:
            arrived.append(receiving.receive_nowait())
    assert arrived == list(range(50))


@settings(max_examples=60)
@given(
    capacity=st.integers(0, 4),
    n_senders=st.integers(1, 5),
    n_receivers=st.integers(1, 5),
    n_items=st.integers(0, 30),
)
def test_with_many_at_both_ends_every_item_arrives_exactly_once(
    capacity: int, n_senders: int, n_receivers: int, n_items: int
) -> None:
    async def scenario() -> None:
        sending, receiving = anyio.create_memory_object_stream[int](capacity)
        arrived = list[int]()
        async with asyncio.timeout(5), anyio.create_task_group() as group:
            for _ in range(n_receivers):
                group.start_soon(receive_all, receiving.clone(), arrived)
            for number in range(n_senders):
                mine = list(range(number * n_items, (number + 1) * n_items))
                group.start_soon(send_all, sending.clone(), mine)
            await sending.aclose()
            await receiving.aclose()
        assert Counter(arrived) == Counter(range(n_senders * n_items))

    asyncio.run(scenario())
