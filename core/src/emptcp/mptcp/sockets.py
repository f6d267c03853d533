# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of the MPTCP subflows of a network namespace, read by a bpf_iter/tcp program.

2,000 sockets take about 5 ms, and no socket is touched. Sequence numbers are those of the moment at which the
kernel passed the socket: on a busy subflow they are old by the time they are used.
"""

from __future__ import annotations

import atexit
import struct
import threading
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from emptcp.errors import EmptcpError
from emptcp.mptcp import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emptcp.hooks.namespaces import Namespace
    from emptcp.pybpf import Link

OBJECT = Path(__file__).parent.parent / "programs" / "subflows.bpf.o"

RECORD = struct.Struct("=16s16sHHHBBIii10I2B2x8s8s6Q7I4x")
"""struct emptcp_subflow_record of programs/subflows.bpf.c."""

_AF_INET = 2
BACKUP, REQUEST_BACKUP, TIMESTAMPS, JOINING, SNDBUF_LIMITED = 1, 2, 4, 8, 16
"""enum subflow_flag: backup by the peer, by the local endpoint; timestamps; a join is not answered yet; the
connection takes no more from the application now."""

STATES = {
    1: "established",
    2: "syn-sent",
    3: "syn-recv",
    4: "fin-wait-1",
    5: "fin-wait-2",
    6: "time-wait",
    7: "closed",
    8: "close-wait",
    9: "last-ack",
    10: "listening",
    11: "closing",
    12: "syn-recv",
}
"""Linux's numbers of TCP states (include/net/tcp_states.h), and what `ss` calls them."""

# Those in which both ends still take options.
OPEN_STATES = {number: STATES[number] for number in (1, 4, 5, 8)}

Address = IPv4Address | IPv6Address

_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Subflow:
    """One MPTCP subflow as this host's socket sees it.

    Addresses are what stands on the wire: an IPv6 socket that speaks IPv4 has IPv4 addresses here.
    ``backup`` is the bit that the peer asked for (it steers what *this* host sends), ``request_backup`` the
    one of the local endpoint. Windows are in bytes; ``receive_window`` is counted from ``acknowledged``.
    ``token`` is this host's, ``remote_token`` the peer's (0: not known). ``keys`` are the connection's, this
    host's first, as on the wire; empty: not known. They are secrets, and in no representation.
    """

    local: Address
    local_port: int
    remote: Address
    remote_port: int
    state: int
    token: int
    local_id: int
    remote_id: int
    backup: bool
    request_backup: bool
    timestamps: bool
    snd_una: int
    snd_nxt: int
    send_window: int
    write_seq: int
    rcv_nxt: int
    acknowledged: int
    receive_window: int
    rtt_us: float
    bound_device: int
    device: int
    send_scale: int
    receive_scale: int
    remote_token: int = 0
    keys: tuple[bytes, bytes] = field(default=(b"", b""), repr=False)
    joining: bool = False
    """Joined, and the peer's answer to that is still on its way: any other ACK ends it (RFC 8684, 3.2)."""

    @property
    def family(self) -> Literal[4, 6]:
        """The IP version on the wire."""
        return 4 if isinstance(self.local, IPv4Address) else 6

    @property
    def endpoints(self) -> tuple[Address, int, Address, int]:
        """Local address and port, remote address and port."""
        return self.local, self.local_port, self.remote, self.remote_port

    @property
    def open(self) -> bool:
        """Whether both ends look at MPTCP options that arrive on it."""
        return self.state in OPEN_STATES and not self.joining

    def __str__(self) -> str:
        return f"{_endpoint(self.local, self.local_port)} > {_endpoint(self.remote, self.remote_port)}"


def _endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def load() -> Link:
    """Load the iterator program at the first call; it takes 15 ms, so the process keeps it.

    Raises as :class:`SubflowReader` does.
    """
    from emptcp.pybpf import features

    if not features.has("bpf_iter_tcp"):
        raise EmptcpError(
            f"this kernel can't list MPTCP subflows: {features.reason('bpf_iter_tcp')}",
            fix="A kernel of 5.10 or later with CONFIG_DEBUG_INFO_BTF is needed.",
        )
    with _loading:  # another thread may be at it
        return _loaded()


@cache
def _loaded() -> Link:
    from emptcp import pybpf

    with pybpf.load_object(OBJECT) as loaded:
        link = pybpf.Link.attach_iter(loaded.programs["emptcp_subflows"])
    atexit.register(link.close)
    return link


class SubflowReader:
    """The iterator program, loaded once; reads any number of namespaces any number of times.

    Raises EmptcpError where the kernel has no BPF iterator over TCP sockets (5.9) or the object is not built.
    """

    def __init__(self) -> None:
        self._link = load()

    def read(self, namespace: Namespace | None = None) -> list[Subflow]:
        """Return the subflows of ``namespace`` (None: the caller's), in the kernel's order."""
        if namespace is None:
            return list(unpack(self._link.read()))
        from emptcp.hooks import namespaces

        return list(unpack(namespaces.call(namespace, self._link.read)))

    def records(self, namespace: Namespace) -> bytes:
        """Return the same as the program wrote it: a :data:`RECORD` for each subflow."""
        from emptcp.hooks import namespaces

        return namespaces.call(namespace, self._link.read)

    def close(self) -> None:
        """Read no more. The program stays, for the readers to come."""

    def __enter__(self) -> SubflowReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Snapshot:
    """What a :class:`SubflowReader` says when it is first asked of each namespace; it is loaded then.

    A context manager. :meth:`forget` lets it look again.
    """

    def __init__(self) -> None:
        self._reader: SubflowReader | None = None
        self._read: dict[int, list[Subflow]] = {}
        self._routed: dict[int, dict[object, int]] = {}

    def read(self, namespace: Namespace | None = None) -> list[Subflow]:
        """Return the subflows of ``namespace`` as :meth:`SubflowReader.read` did the first time."""
        same = namespace.cookie if namespace is not None else 0
        if same not in self._read:
            self._reader = self._reader or SubflowReader()
            found = self._read[same] = self._reader.read(namespace)
            before = self._routed.get(same, {})
            there = {(one.endpoints, one.token) for one in found} & before.keys()
            self._routed[same] = {one: before[one] for one in there}
        return self._read[same]

    def routed(self, namespace: Namespace | None = None) -> dict[object, int]:
        """Return the devices that routes named for subflows that are there, to be added to.

        See :func:`emptcp.mptcp.routes.device_indexes`.
        """
        return self._routed.setdefault(namespace.cookie if namespace is not None else 0, {})

    def forget(self) -> None:
        """Ask again from now on."""
        self._read.clear()

    def close(self) -> None:
        """Read no more."""
        if self._reader is not None:
            self._reader.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def subflows(namespace: Namespace | None = None) -> list[Subflow]:
    """Return the MPTCP subflows of ``namespace`` (None: the caller's); see :class:`SubflowReader`."""
    with SubflowReader() as reader:
        return reader.read(namespace)


def unpack(records: bytes) -> Iterator[Subflow]:
    """Yield one Subflow per record of the iterator program; raises EmptcpError on a torn record."""
    if len(records) % RECORD.size:
        raise EmptcpError(
            f"the subflow iterator answered {len(records)} bytes, which is no multiple of {RECORD.size}",
            fix="The object and the Python code differ in version: install emptcp again.",
        )
    for fields in RECORD.iter_unpack(records):
        yield _subflow(fields)


def _subflow(fields: tuple[Any, ...]) -> Subflow:
    local, remote, family, local_port, remote_port, state, flags, token, local_id, remote_id, *rest = fields
    una, nxt, window, write, rcv_nxt, wup, receive, srtt, bound, device, *rest = rest
    send_scale, receive_scale, remote_key, local_key, *_measured = rest
    # The kernel has them in the machine's order.
    ours, theirs = (key[::-1] if any(key) else b"" for key in (local_key, remote_key))
    return Subflow(
        local=_address(local, family),
        local_port=local_port,
        remote=_address(remote, family),
        remote_port=remote_port,
        state=state,
        token=token,
        local_id=local_id,
        remote_id=remote_id,
        backup=bool(flags & BACKUP),
        request_backup=bool(flags & REQUEST_BACKUP),
        timestamps=bool(flags & TIMESTAMPS),
        snd_una=una,
        snd_nxt=nxt,
        send_window=window,
        write_seq=write,
        rcv_nxt=rcv_nxt,
        acknowledged=wup,
        receive_window=receive,
        rtt_us=srtt / 8,
        bound_device=bound,
        device=device,
        send_scale=send_scale,
        receive_scale=receive_scale,
        remote_token=keys.token(theirs, 1) if theirs else 0,
        keys=(ours, theirs),
        joining=bool(flags & JOINING),
    )


def _address(raw: bytes, family: int) -> Address:
    if family == _AF_INET:
        return IPv4Address(raw[:4])
    address = IPv6Address(raw)
    return address.ipv4_mapped or address
