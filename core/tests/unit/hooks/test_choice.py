# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest

from emptcp.errors import EmptcpError
from emptcp.hooks.choice import choose
from emptcp.hooks.devices import Device

NIC = Device("eth0", 2, "ethernet", "ixgbe", 1500, "02:00:00:00:00:01")


def backends(device: Device, hook: str = "ingress", backend: str = "auto") -> list[str]:
    return [choice.backend for choice in choose(device, hook, backend)]


def test_a_nic_gets_native_xdp_and_tc_if_its_driver_refuses() -> None:
    assert backends(NIC) == ["xdp", "tc"]
    assert "ixgbe" in choose(NIC, "ingress")[0].reason


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (replace(NIC, driver="veth", virtual=True), "segmentation offload"),
        (replace(NIC, driver="tun", virtual=True), "merged packets"),
        (replace(NIC, driver="bridge", virtual=True), "virtual device (bridge)"),
        (replace(NIC, link="none", driver="wireguard", virtual=True), "Ethernet header"),
        (replace(NIC, name="lo", driver="", loopback=True), "loopback"),
    ],
)
def test_devices_where_native_xdp_harms_or_fails_get_tc_with_the_reason(device: Device, reason: str) -> None:
    (choice,) = choose(device, "ingress")
    assert choice.backend == "tc"
    assert reason in choice.reason


def test_egress_is_tc_whatever_is_asked() -> None:
    for backend in ("auto", "xdp", "xdp-generic", "tc"):
        assert backends(NIC, "egress", backend) == ["tc"]


@pytest.mark.parametrize("backend", ["xdp", "xdp-generic", "tc"])
def test_what_is_asked_for_by_name_is_the_only_choice(backend: str) -> None:
    assert backends(NIC, "ingress", backend) == [backend]


def test_generic_xdp_is_never_chosen_by_itself() -> None:
    for driver in ("ixgbe", "veth", "tun", "bond", ""):
        for virtual in (False, True):
            assert "xdp-generic" not in backends(replace(NIC, driver=driver, virtual=virtual))


def test_an_unknown_backend_gets_a_suggestion() -> None:
    with pytest.raises(EmptcpError, match="there is no back-end 'xpd'") as caught:
        choose(NIC, "ingress", "xpd")
    assert caught.value.fix == "Did you mean 'xdp'?"


def test_a_device_whose_packets_cannot_be_read_is_refused() -> None:
    with pytest.raises(EmptcpError, match="'can0' carries neither Ethernet nor plain IP"):
        choose(replace(NIC, name="can0", link="other"), "ingress")
