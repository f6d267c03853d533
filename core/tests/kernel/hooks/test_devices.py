# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess

import pytest

from emptcp.errors import EmptcpError
from emptcp.hooks import devices
from emptcp.hooks.namespaces import Namespace

pytestmark = pytest.mark.kernel


def matched(host: Namespace, *patterns: str) -> list[str]:
    return sorted(device.name for device in devices.match(host, patterns))


def test_devices_are_what_ip_says_they_are(host: Namespace) -> None:
    said = subprocess.run(
        ["ip", "-n", host.name, "-json", "-d", "link"], check=True, capture_output=True, timeout=10
    )
    theirs = {
        entry["ifname"]: (entry["ifindex"], entry["mtu"], entry.get("linkinfo", {}).get("info_kind", ""))
        for entry in json.loads(said.stdout)
    }
    mine = {d.name: (d.ifindex, d.mtu, d.driver if d.virtual else "") for d in devices.list_devices(host)}
    assert mine == theirs


def test_a_device_tells_what_its_packets_begin_with(device) -> None:
    begins = {name: device(name).link for name in ("left", "tap0", "br0", "lo", "tun0")}
    assert begins == {
        "left": "ethernet",
        "tap0": "ethernet",
        "br0": "ethernet",
        "lo": "ethernet",
        "tun0": "none",
    }
    assert device("lo").loopback
    assert len(device("left").address) == 17


def test_globs_match_all_but_the_loopback_device(host: Namespace) -> None:
    assert matched(host, "*") == ["br0", "left", "right", "tap0", "tun0"]
    assert matched(host, "t*0", "left", "t[au]*") == ["left", "tap0", "tun0"]
    assert matched(host, "lo") == ["lo"]
    assert matched(host, "wwan*") == []


def test_a_name_that_is_no_device_gets_a_suggestion(host: Namespace) -> None:
    with pytest.raises(
        EmptcpError, match=f"there is no device 'lefft' in the network namespace '{host.name}'"
    ) as e:
        devices.match(host, ["*", "lefft"])
    assert e.value.fix == "Did you mean 'left'?"
    with pytest.raises(EmptcpError) as caught:
        devices.find(host, "zzz")
    assert "right" in caught.value.fix
