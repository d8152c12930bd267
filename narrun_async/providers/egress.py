"""Guards where bytes may go: judges every address at the moment it is dialled, whatever name led to it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
SocketFactory = Callable[[AddressInfo], socket.socket]

# RFC 1918 and RFC 4193. `ipaddress.is_private` is wider: it counts 0.0.0.0/8, documentation and benchmark ranges.
_PRIVATE_4 = tuple(IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
_PRIVATE_6 = IPv6Network("fc00::/7")
# Cloud metadata services that are not link-local; they hand out credentials.
_METADATA = frozenset({IPv4Address("100.100.100.200"), IPv6Address("fd00:ec2::254")})
# RFC 6052: an IPv4 address behind a translator
_NAT64 = IPv6Network("64:ff9b::/96")


class EgressRefusedError(OSError):
    """An address that may not be dialled; no socket was made for it.

    An OSError, because aiohttp's connector passes only those on from a socket factory. Its text is the same for
    every address, because the connector merges errors of different texts into a plain OSError.
    """

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "this address may not be dialled")


def address_is_allowed(ip: str, *, allow_remote: bool) -> bool:
    """Loopback and private addresses; global ones too where remote is allowed.

    Never link-local, multicast, unspecified or reserved ones, nor text that is no address. An IPv4 address inside
    an IPv6 one is judged as what it is; one behind a tunnel or translator counts as remote.
    """
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif (tunnelled := _tunnelled_ipv4(address)) is not None:
            return allow_remote and _is_public(tunnelled)
    if address in _METADATA:
        return False
    return address.is_loopback or _is_private(address) or (allow_remote and _is_public(address))


def guarded_socket_factory(*, allow_remote: bool) -> SocketFactory:
    """A socket factory for aiohttp's connector that makes sockets for allowed addresses only.

    The factory raises EgressRefusedError before a socket exists.
    """

    def make_socket(address_info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = address_info
        if not address_is_allowed(str(address[0]), allow_remote=allow_remote):
            raise EgressRefusedError
        return socket.socket(family=family, type=kind, proto=protocol)

    return make_socket


def _is_private(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in _PRIVATE_4)
    return address in _PRIVATE_6


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address.is_site_local:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _tunnelled_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.sixtofour
