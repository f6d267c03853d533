# SPDX-License-Identifier: Apache-2.0
"""Echo an announcement that was kept back, so that its sender stops repeating it (RFC 8684, section 3.4.1).

Version 0 of MPTCP knows no echo.
"""

from __future__ import annotations

from typing import Literal

from emptcp.api import Injector, StageEvent, SubflowReader, namespaces, tell

from .blocked import kept
from .subflow import device_of, is_between

End = Literal["us", "peer"]

_HMAC = 8  # bytes at the end, which an echo lacks
_ECHO = 0x01
_WITH_HMAC = (16, 18, 28, 30)
"""Bytes of the announcements of version 1: IPv4 or IPv6, without and with a port."""


def echo(event: StageEvent) -> None:
    """Answer who announced, in the receiver's name, if this host has the subflow."""
    option = echo_of(kept(event.data))
    if option is None:
        return
    to: End = "peer" if event.hook == "ingress" else "us"
    namespace = namespaces.by_cookie(event.netns)
    with SubflowReader() as reader, Injector(namespace) as injector:
        for subflow in reader.read(namespace):
            device = device_of(namespace, subflow) if is_between(subflow, event.endpoints) else None
            if device is not None:
                tell(subflow, device, [option], to, namespace=namespace, reader=reader, injector=injector)


def echo_of(option: bytes) -> bytes | None:
    """Return the echo of an ADD_ADDR, ``None`` where there is none."""
    if len(option) not in _WITH_HMAC or option[2] & 0x0F:
        return None
    return bytes((option[0], len(option) - _HMAC, option[2] | _ECHO)) + option[3:-_HMAC]
