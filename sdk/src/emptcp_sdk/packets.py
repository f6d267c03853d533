# SPDX-License-Identifier: Apache-2.0
"""Packets for tests: built from their parts, taken apart again, with every MPTCP option of both versions.

:func:`build` makes a packet, correct unless it is told otherwise; :func:`decode` takes one apart, and its
``valid`` says whether lengths and checksums are right. Options are dataclasses::

    packet = build(flags="S", options=[MaximumSegmentSize(1460), WindowScale(7), MpCapable(version=1)])
    assert decode(packet).tcp.window == 512

| option | version 0 (RFC 6824) | version 1 (RFC 8684) |
| --- | --- | --- |
| MP_CAPABLE | ``MpCapable(version=0, sender_key=..)`` | ``MpCapable(version=1)`` |
| MP_JOIN | ``MpJoinSyn``, ``MpJoinSynAck``, ``MpJoinAck`` | the same |
| DSS | ``Dss(..)`` | the same |
| ADD_ADDR | ``AddAddress(.., version=0)`` | ``AddAddress(.., version=1)`` |
| REMOVE_ADDR | ``RemoveAddress(..)`` | the same |
| MP_PRIO | ``MpPrio(backup, address_id)`` | ``MpPrio(backup)`` |
| MP_FAIL, MP_FASTCLOSE | ``MpFail(dsn)``, ``MpFastclose(key)`` | the same |
| MP_TCPRST | | ``MpTcpReset(..)`` |
| any other | ``Other(kind, value)`` | the same |
"""

from __future__ import annotations

from emptcp.packet.build import build, ethernet
from emptcp.packet.decode import Decoded, Reason, Tcp, decode
from emptcp.packet.layers import (
    EtherType,
    Extension,
    Protocol,
    Vlan,
    fragment_header,
    options_header,
    routing_header,
)
from emptcp.packet.mptcp import (
    AddAddress,
    CapableFlag,
    Dss,
    DssFlag,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MptcpOption,
    MpTcpReset,
    RemoveAddress,
)
from emptcp.packet.subtype import Subtype
from emptcp.packet.tcp import (
    EndOfList,
    Flag,
    Kind,
    MaximumSegmentSize,
    Nop,
    Option,
    Other,
    Placed,
    Sack,
    SackPermitted,
    Timestamps,
    WindowScale,
)

__all__ = [
    "AddAddress",
    "CapableFlag",
    "Decoded",
    "Dss",
    "DssFlag",
    "EndOfList",
    "EtherType",
    "Extension",
    "Flag",
    "Kind",
    "MaximumSegmentSize",
    "MpCapable",
    "MpFail",
    "MpFastclose",
    "MpJoinAck",
    "MpJoinSyn",
    "MpJoinSynAck",
    "MpPrio",
    "MpTcpReset",
    "MptcpOption",
    "Nop",
    "Option",
    "Other",
    "Placed",
    "Protocol",
    "Reason",
    "RemoveAddress",
    "Sack",
    "SackPermitted",
    "Subtype",
    "Tcp",
    "Timestamps",
    "Vlan",
    "WindowScale",
    "build",
    "decode",
    "ethernet",
    "fragment_header",
    "options_header",
    "routing_header",
]
