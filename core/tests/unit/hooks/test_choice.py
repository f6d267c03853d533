# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest

from emptcp.errors import EmptcpError
from emptcp.hooks.choice import Limit, choose
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


AT_TC = Limit("actor 'steer'", ("tc",))


def test_what_works_at_tc_only_gets_tc_with_that_as_the_reason() -> None:
    (choice,) = choose(NIC, "ingress", limits=[AT_TC])
    assert (choice.backend, choice.reason) == ("tc", "actor 'steer' works at TC only")
    (choice,) = choose(replace(NIC, driver="tun", virtual=True), "ingress", limits=[AT_TC])
    assert "merged packets" in choice.reason


@pytest.mark.parametrize("backend", ["xdp", "xdp-generic"])
def test_a_back_end_at_which_something_does_not_work_is_refused(backend: str) -> None:
    with pytest.raises(EmptcpError, match="actor 'steer' works at TC only") as caught:
        choose(NIC, "ingress", backend, [AT_TC])
    assert f"run by '{backend}' (asked for)" in caught.value.sentence
    assert caught.value.fix == 'Write backend = "tc" in the policies of this device.'


def test_limits_that_leave_nothing_are_told() -> None:
    with pytest.raises(EmptcpError, match="'other' works at XDP only"):
        choose(NIC, "ingress", limits=[AT_TC, Limit("actor 'other'", ("xdp",))])
