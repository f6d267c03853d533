# SPDX-License-Identifier: Apache-2.0
"""The stages of ``emptcp bench ops``, each with a packet that it acts on and one that it leaves alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any, Literal

from emptcp.packet.build import build
from emptcp.packet.mptcp import AddAddress, Dss, MpCapable, MpJoinSyn, MpPrio
from emptcp.packet.tcp import Nop, Option, Other, Timestamps

_PAYLOAD = bytes(range(200))
_TIME = (Nop(), Nop(), Timestamps(1, 2))
_KEYS = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
_TOKEN = int.from_bytes(hashlib.sha256(_KEYS[1].to_bytes(8, "big")).digest()[:4], "big")
_ECT = 2

ADDRESSES = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
"""Source and target of the packets, by family."""

Does = Literal["selects", "rewrites", "drops", "counts"]


@dataclass(frozen=True)
class Shape:
    """A packet, but for its addresses. ``turned``: it goes the other way."""

    options: Sequence[Option]
    payload: bytes = b""
    rest: dict[str, Any] = field(default_factory=dict)
    turned: bool = False

    def build(self, family: int) -> bytes:
        """Return the packet with addresses of a family, 4 or 6."""
        source, target = ADDRESSES[family][:: -1 if self.turned else 1]
        chosen: Literal[4, 6] = 4 if family == 4 else 6
        packet = {"options": self.options, "payload": self.payload, **self.rest}
        return build(family=chosen, src=source, dst=target, **packet)

    def but(self, **rest: Any) -> Shape:
        """Return the same with something different."""
        return replace(self, rest=self.rest | rest)


DATA = Shape((*_TIME, Dss(data_ack=7, dsn=8, subflow_seq=1, data_length=len(_PAYLOAD))), _PAYLOAD)
BACK = replace(DATA, turned=True)
ACK = Shape((*_TIME, Dss(data_ack=7)))
SAID = Shape((*_TIME, Dss(data_ack=7), MpPrio(backup=False)))
ANNOUNCEMENT = Shape(
    (*_TIME, Dss(data_ack=7, wide_ack=False), AddAddress(3, IPv4Address("10.9.0.7"), version=0))
)
JOIN = Shape((MpJoinSyn(token=5, nonce=6, address_id=1),), rest={"flags": "S"})
OPEN = Shape((MpCapable(),), rest={"flags": "S"})
KEYS = Shape((MpCapable(sender_key=_KEYS[0], receiver_key=_KEYS[1]),))
MARKED = Shape((*_TIME, Dss(data_ack=7, wide_ack=False), Other(253, b"\xe0\xe1\x01\x02")), _PAYLOAD)


@dataclass(frozen=True)
class Op:
    """A stage as a policy writes it, with ``{src}`` and ``{dst}`` for the packet's addresses.

    ``acts`` is the packet that it does something to, and ``does`` what; ``passes`` is one that it leaves
    alone, if there is one. ``once``: the subflow's state has to be brought back. ``earlier`` packets came
    before. ``tokens``: the stage needs what the resident process works out.
    """

    kind: str
    text: str
    acts: Shape
    passes: Shape | None
    does: Does
    note: str = ""
    once: bool = False
    earlier: tuple[Shape, ...] = ()
    tokens: bool = False
    backends: tuple[str, ...] = ("xdp", "tc")

    @property
    def changes(self) -> bool:
        """Whether the packet has to be brought back."""
        return self.does == "rewrites"

    @property
    def title(self) -> str:
        """The stage, and what of it is measured."""
        return f"{self.text.format(src='..', dst='..')}{self.note and f': {self.note}'}"


def _selector(text: str, acts: Shape, passes: Shape | None, **rest: Any) -> Op:
    return Op("selector", text, acts, passes, "selects", **rest)


def _actor(text: str, acts: Shape, passes: Shape | None, does: Does, note: str = "", **rest: Any) -> Op:
    return Op("actor", text, acts, passes, does, note, **rest)


OPS = (
    _selector("address(saddr={src})", DATA, BACK),
    _selector(f"connection(token={_TOKEN})", DATA, DATA.but(sport=40001), earlier=(KEYS,), tokens=True),
    _selector("ip_pair(saddr={src}, daddr={dst})", DATA, BACK),
    _selector("option(kind=253, exid=0xe0e1)", MARKED, DATA),
    _selector("packet_type('data')", DATA, ACK),
    _selector("sample(share=50%)", DATA.but(sport=40003), DATA.but(sport=40002)),
    _selector("sequence(space=ssn, relative=false, first=1000, last=2000)", DATA, DATA.but(seq=5000)),
    _selector("sequence(space=dsn, relative=false, first=8, last=2000)", DATA, ACK),
    _selector("subflow(saddr={src}, sport=40000, daddr={dst}, dport=5001)", DATA, DATA.but(dport=5002)),
    _actor("add_option(exid=0xe0e1, value=0x0102, size=2)", ACK, MARKED, "rewrites", "an ACK grows"),
    _actor("add_subflow()", JOIN, DATA, "counts", "lets a join pass"),
    _actor("blk_subflow()", JOIN, DATA, "drops", "holds a join"),
    _actor("blk_subflow()", ANNOUNCEMENT, DATA, "rewrites", "keeps an address back"),
    _actor("drop()", DATA, OPEN, "drops"),
    _actor("get_connect()", KEYS, DATA, "counts", "of a connection that it told of", earlier=(OPEN, KEYS)),
    _actor("get_subflow()", JOIN, DATA, "counts", "a subflow joins"),
    _actor("rate_limit(rate=40gbit, mode=police)", DATA, ACK, "counts", "within the rate"),
    _actor("rate_limit(rate=8kbit, mode=police)", DATA, ACK, "drops", "beyond the rate", earlier=(DATA,) * 2),
    _actor(
        "rate_limit(rate=8kbit, mode=mark)",
        DATA.but(tos=_ECT),
        ACK,
        "rewrites",
        "beyond the rate",
        earlier=(DATA,) * 2,
    ),
    _actor("record('packets', 'bytes')", DATA, None, "counts"),
    _actor("record('packets', 'bytes', 'rtt')", DATA, None, "counts"),
    _actor("remove_option(option='add_addr')", ANNOUNCEMENT, DATA, "rewrites"),
    _actor("set_backup(on=true)", ACK, DATA, "rewrites", "says it in an ACK", once=True, earlier=(ACK,)),
    _actor("set_backup(on=true)", SAID, DATA, "rewrites", "says it in place of another", earlier=(ACK,)),
    _actor("steer(to=[lo], by=hash, mode=mark)", DATA, None, "counts", backends=("tc",)),
)
