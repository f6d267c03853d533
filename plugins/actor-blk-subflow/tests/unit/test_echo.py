# SPDX-License-Identifier: Apache-2.0
"""The echo of an announcement is what the announcement's receiver would send."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from emptcp.packet.mptcp import AddAddress
from emptcp_actor_blk_subflow.echo import echo_of

HMAC = bytes(range(8))
ADDRESSES = [ip_address("10.9.0.7"), ip_address("fd09::7")]


@pytest.mark.parametrize("port", [None, 443])
@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_it_has_id_address_and_port_and_no_hmac(address: object, port: int | None) -> None:
    announced = AddAddress(3, address, port=port, hmac=HMAC)  # type: ignore[arg-type]
    assert echo_of(announced.encode()) == AddAddress(3, address, port=port, echo=True).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize("port", [None, 443])
@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_version_0_has_none(address: object, port: int | None) -> None:
    assert echo_of(AddAddress(3, address, port=port, version=0).encode()) is None  # type: ignore[arg-type]
