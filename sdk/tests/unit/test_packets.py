# SPDX-License-Identifier: Apache-2.0
"""What authors build packets from: every option, both versions."""

from __future__ import annotations

import inspect
from ipaddress import ip_address

import pytest

from emptcp.packet import mptcp, tcp
from emptcp_sdk import packets
from emptcp_sdk.packets import (
    AddAddress,
    Dss,
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
    Subtype,
    build,
    decode,
)

V4, V6 = ip_address("10.0.0.9"), ip_address("fd00::9")

OPTIONS: list[tuple[str, MptcpOption]] = [
    ("S", MpCapable(sender_key=5, version=0)),
    ("S", MpCapable(version=1)),
    ("SA", MpCapable(sender_key=5, version=0)),
    ("SA", MpCapable(sender_key=5, version=1)),
    ("A", MpCapable(sender_key=5, receiver_key=6, version=0)),
    ("A", MpCapable(sender_key=5, receiver_key=6, version=1)),
    ("A", MpCapable(sender_key=5, receiver_key=6, data_length=4, version=1)),
    ("S", MpJoinSyn(token=1, nonce=2, address_id=3, backup=True)),
    ("SA", MpJoinSynAck(hmac=bytes(8), nonce=2, address_id=3)),
    ("A", MpJoinAck(hmac=bytes(20))),
    ("A", Dss(data_ack=1)),
    ("A", Dss(data_ack=1, dsn=2, data_length=4, checksum=3)),
    ("A", Dss(data_ack=1, dsn=2, data_length=4, wide_ack=False, wide_dsn=False, data_fin=True)),
    ("A", AddAddress(3, V4, version=0)),
    ("A", AddAddress(3, V6, port=7, version=0)),
    ("A", AddAddress(3, V4, hmac=bytes(8), version=1)),
    ("A", AddAddress(3, V6, port=7, hmac=bytes(8), version=1)),
    ("A", AddAddress(3, V4, echo=True, version=1)),
    ("A", RemoveAddress((3, 4))),
    ("A", MpPrio(backup=True)),
    ("A", MpFail(dsn=7)),
    ("A", MpFastclose(receiver_key=7)),
    ("RA", MpTcpReset(reason=6)),
]


@pytest.mark.parametrize(("flags", "option"), OPTIONS, ids=lambda one: str(one)[:60])
def test_what_is_built_is_decoded_as_the_same(flags: str, option: MptcpOption) -> None:
    found = decode(build(flags=flags, options=[option]))
    assert found.valid
    assert found.tcp is not None
    assert found.tcp.options[0].option == option


def test_the_table_above_has_every_subtype() -> None:
    assert {option.subtype for _, option in OPTIONS} == set(Subtype)


def test_the_priority_of_version_0_names_an_address() -> None:
    assert MpPrio(True, address_id=3).encode() == bytes([30, 4, 0x51, 3])


@pytest.mark.parametrize("module", [mptcp, tcp], ids=lambda module: module.__name__)
def test_no_option_is_missing(module: object) -> None:
    options = {name for name, one in vars(module).items() if inspect.isclass(one) and hasattr(one, "encode")}
    assert options
    assert options <= set(packets.__all__)
