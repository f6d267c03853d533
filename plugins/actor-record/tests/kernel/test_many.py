# SPDX-License-Identifier: Apache-2.0
"""Ten thousand subflows are read by one walk in batches over each table, not one by one."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from emptcp import pybpf
from emptcp.chain import apply, flows, pins, states
from emptcp.chain.shared import HEAD_BYTES, SLOT_BYTES
from emptcp.hooks import namespaces
from emptcp.policy import file
from emptcp_actor_record.hooks import MAP, NAME, emptcp_metrics
from emptcp_actor_record.tracks import FLOW_BYTES, Known, What

pytestmark = pytest.mark.kernel

COUNT = 10_000
SINCE = 77
POLICY = """
table = "many"
[[policy]]
name = "all"
hook = "ingress"
dev = "left0"
do = ["record('packets', 'size')"]
"""


@pytest.fixture
def cookie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """A namespace with a policy that records; gives its cookie."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-many"))
    name = f"emt{os.getpid()}-many"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
    try:
        add = ["ip", "-n", name, "link", "add", "left0", "type", "veth", "peer", "name", "right0"]
        subprocess.run(add, check=True, timeout=10)
        apply.apply(file.loads(POLICY), name)
        yield namespaces.resolve(name).cookie
    finally:
        if apply.tables.names():
            apply.remove("many")
        subprocess.run(["ip", "netns", "delete", name], check=True, timeout=10)


def fill(tree: pins.Pins, cookie: int) -> None:
    """Write what programs keep of subflow n: n packets, n bytes."""
    place, _size = states.known(tree, cookie)[NAME]
    here, there = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
    keys = [flows.key((here, n), (there, 80)) for n in range(COUNT)]
    netns = struct.pack("=I", cookie & 0xFFFFFFFF)
    with pybpf.Map.from_pin(tree.flows(cookie)) as table:
        table.update_batch((key, entry(n, place)) for n, key in enumerate(keys))
    with pybpf.Map.from_pin(tree.plugin_map(NAME, MAP)) as table:
        table.update_batch((key + netns, track(n)) for n, key in enumerate(keys))


def entry(packets: int, place: int) -> bytes:
    """An entry of the flow table that says that it is an MPTCP subflow."""
    head = struct.pack("=QB", SINCE, 1).ljust(HEAD_BYTES + place, b"\0")
    return (head + struct.pack("=Q", packets)).ljust(HEAD_BYTES + SLOT_BYTES, b"\0")


def track(size: int) -> bytes:
    """An entry of the plugin's map that says how much the first end sent."""
    begun = struct.pack("=94xB", Known.BEGUN)  # struct record_way up to `known`
    whole = struct.pack("=QI68x", SINCE, What.SIZE) + struct.pack("=Q", size) + begun[8:]
    return whole.ljust(FLOW_BYTES, b"\0")


def told(tree: pins.Pins, cookie: int) -> Any:
    entries = flows.entries(tree, cookie)
    return sorted(tuple(sorted(found.items())) for found in emptcp_metrics(entries))


@pytest.mark.parametrize("without", ["", "batch"])
def test_all_are_told(cookie: int, monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    tree = pins.find()
    assert tree is not None
    fill(tree, cookie)
    looked_up: list[bytes] = []
    lookup = pybpf.Map.lookup

    def counted(self: pybpf.Map, key: bytes) -> bytes | None:
        looked_up.append(key)
        return lookup(self, key)

    monkeypatch.setattr(pybpf.Map, "lookup", counted)
    monkeypatch.setenv("EMPTCP_DISABLE", without)
    found = told(tree, cookie)
    assert found == sorted((*((("packets_0", n),) if n else ()), ("size_0", n)) for n in range(COUNT))
    # With batches one look-up in all, of where the plugin's slot is.
    assert (len(looked_up) < 10) == (not without)
