"""Which addresses may be dialled, judged alone and at the moment a connection is made."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from narrun_async.providers.egress import EgressRefusedError, address_is_allowed, guarded_socket_factory
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider
from narrun_async.retrying import CallError, CallProblem

LOCAL = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.7.7", "fd12::1"]
GLOBAL = ["8.8.8.8", "1.2.3.4", "::ffff:1.2.3.4", "2606:4700::1111", "64:ff9b::102:304", "2002:102:304::1"]
NEVER = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "64:ff9b::7f00:1",
    "fe80::1",
    "fe80::1%eth0",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "::ffff:0.0.0.0",
    "::7f00:1",
    "224.0.1.1",
    "255.255.255.255",
    "240.0.0.1",
    "ff02::1",
    "fec0::1",
    "100.64.0.1",
    "100.100.100.200",
    "fd00:ec2::254",
    "203.0.113.5",
    "localhost",
    "0x7f.1",
    "",
]


@pytest.mark.parametrize("ip", LOCAL)
def test_loopback_and_private_addresses_are_allowed(ip: str) -> None:
    assert address_is_allowed(ip, allow_remote=False)
    assert address_is_allowed(ip, allow_remote=True)


@pytest.mark.parametrize("ip", GLOBAL)
def test_global_addresses_need_the_permission(ip: str) -> None:
    assert not address_is_allowed(ip, allow_remote=False)
    assert address_is_allowed(ip, allow_remote=True)


@pytest.mark.parametrize("ip", NEVER)
def test_some_addresses_are_never_allowed(ip: str) -> None:
    assert not address_is_allowed(ip, allow_remote=False)
    assert not address_is_allowed(ip, allow_remote=True)


def test_a_socket_is_made_for_an_allowed_address_only() -> None:
    make_socket = guarded_socket_factory(allow_remote=False)
    make_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 9))).close()
    with pytest.raises(EgressRefusedError):
        make_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 9)))


_watching: list[object] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and _watching is not None:
        _watching.append(arguments[1])


sys.addaudithook(_watch)


@pytest.fixture
def dialled() -> Iterator[list[object]]:
    """Every address that this process connects to while the test runs."""
    global _watching  # noqa: PLW0603 - an audit hook cannot be taken away again
    _watching = []
    yield _watching
    _watching = None


@pytest.mark.parametrize("allow_remote", [False, True])
@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "0.0.0.0", "[fe80::1]", "[::]"])
async def test_no_connection_is_tried_to_what_is_never_allowed(
    host: str, allow_remote: bool, dialled: list[object]
) -> None:
    await refused(f"http://{host}:9/v1", allow_remote=allow_remote)
    assert dialled == []


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "[::ffff:1.2.3.4]", "[2606:4700::1111]", "0x08.0x08.0x08.0x08", "134744072"]
)
async def test_no_connection_is_tried_to_a_remote_host_without_permission(host: str, dialled: list[object]) -> None:
    await refused(f"http://{host}:9/v1", allow_remote=False)
    assert dialled == []


async def test_an_allowed_address_is_dialled(dialled: list[object]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = bound.getsockname()
        provider = OpenAICompatibleProvider(url=f"http://127.0.0.1:{address[1]}", api_key=None)
        with pytest.raises(CallError) as caught:
            await provider.complete(b"{}")
        await provider.aclose()
    assert caught.value.problem is CallProblem.UNREACHABLE
    assert dialled == [address]


async def refused(url: str, *, allow_remote: bool) -> None:
    provider = OpenAICompatibleProvider(url=url, api_key=None, allow_remote=allow_remote)
    with pytest.raises(CallError) as caught:
        await provider.complete(b"{}")
    await provider.aclose()
    assert caught.value.problem is CallProblem.EGRESS
