# SPDX-License-Identifier: Apache-2.0
"""Say an option on a subflow of this host, in an ACK of its own, until it was in time.

On a busy subflow data overtakes such an ACK, and who gets it drops it as old. Whether that may have happened
the socket's sequence numbers tell; then it is said again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emptcp.mptcp.acknowledge import duplicate_ack

if TYPE_CHECKING:
    from emptcp.hooks.devices import Device
    from emptcp.hooks.namespaces import Namespace
    from emptcp.mptcp.acknowledge import End
    from emptcp.mptcp.inject import Injector
    from emptcp.mptcp.sockets import Subflow, SubflowReader
    from emptcp.packet.tcp import Option

ATTEMPTS = 5
PAUSE = 0.005
"""Seconds before the first look; doubled each time."""


def tell(
    subflow: Subflow,
    device: Device,
    options: Sequence[Option | bytes],
    to: End,
    *,
    namespace: Namespace | None,
    reader: SubflowReader,
    injector: Injector,
) -> bool:
    """Say ``options`` to this host's end of ``subflow`` (``to="us"``), as if ``device`` had received them, or
    to its peer (``to="peer"``).

    The options must be such that may be heard twice. Answers whether they were said at a current sequence
    number; False also when the subflow ended. Raises as :class:`Injector` does.
    """
    for attempt in range(ATTEMPTS):
        before = _now(subflow, namespace, reader)
        if before is None:
            return False
        packet = duplicate_ack(before, options, to)
        if to == "us":
            injector.deliver(device, packet)
        else:
            injector.send(packet)
        time.sleep(PAUSE * 2**attempt)
        after = _now(subflow, namespace, reader)
        if after is None or _place(after, to) == _place(before, to):
            return True
    return False


def _now(subflow: Subflow, namespace: Namespace | None, reader: SubflowReader) -> Subflow | None:
    """Return the subflow as it is; None when it ended."""
    found = (one for one in reader.read(namespace) if one.open)
    return next((one for one in found if one.endpoints == subflow.endpoints), None)


def _place(subflow: Subflow, to: End) -> int:
    """Return the sequence number that moves on with data of the end that the packet is from."""
    return subflow.rcv_nxt if to == "us" else subflow.snd_nxt
