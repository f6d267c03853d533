# SPDX-License-Identifier: Apache-2.0
"""blk_subflow on a hop: what a REMOVE_ADDR on another subflow takes back is forgotten, without any socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from emptcp.api import Injector, Subflow, device_indexes, devices, open_plugin_map, tell
from emptcp.chain import apply
from emptcp.hooks import namespaces
from emptcp.lab import traffic
from emptcp.lab.hypervisor import Behind, behind_hypervisor
from emptcp.lab.resident import resident
from emptcp.mptcp.sockets import SubflowReader
from emptcp.packet.mptcp import RemoveAddress
from emptcp.policy import file
from emptcp_actor_blk_subflow.blocked import waiting
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

SECOND = "10.1.0.77"
TABLE = """
table = "block"
[[policy]]
name = "p"
hook = "ingress"
dev = "link*"
do = ["blk_subflow(joins=false)"]
"""


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Behind]:
    """A hypervisor that keeps back what the peer announces; its guest joins from an address of its own."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-hop"))
    with behind_hypervisor(name=f"t{os.getpid()}h") as lab, resident("--no-guard"):
        lab.guest.run(f"ip address add {SECOND}/24 dev eth0".split())
        # The tests take an address back in its name. Its kernel does not know, and would announce it again.
        lab.peer.set("net.mptcp.add_addr_timeout", 0)
        lab.guest.run(f"ip mptcp endpoint add {SECOND} dev eth0 subflow".split())
        apply.apply(file.loads(TABLE), lab.hypervisor.netns)
        yield lab
        apply.remove("block", keep_effects=True)


def of_peer(lab: Behind) -> list[Subflow]:
    with SubflowReader() as reader:
        return [one for one in reader.read(namespaces.resolve(lab.peer.netns)) if one.open]


def kept_back() -> list[bytes]:
    with cast(Any, open_plugin_map("blk_subflow", "blocked_addresses")) as table:
        return [one.option for key, _ in table.items() for one in waiting(table, key)]


def say(lab: Behind, subflow: Subflow, option: RemoveAddress) -> None:
    """Let the peer say something on a subflow."""
    namespace = namespaces.resolve(lab.peer.netns)
    with SubflowReader() as reader, Injector(namespace) as injector:
        (index,) = device_indexes(namespace, [subflow])
        device = next(one for one in devices.list_devices(namespace) if one.ifindex == index)
        assert tell(subflow, device, [option], "peer", namespace=namespace, reader=reader, injector=injector)


@pytest.mark.parametrize("of", ["the same connection", "another connection"])
def test_an_address_that_is_removed_on_another_subflow_is_forgotten(between: Behind, of: str) -> None:
    traffic.start(between.guest, between.peer, between.addresses[0])
    wait_until(lambda: len(of_peer(between)) == 2)
    wait_until(lambda: len(kept_back()) == 1)
    (token,) = {one.token for one in of_peer(between)}
    number = kept_back()[0][3]
    if of == "another connection":
        traffic.start(between.guest, between.peer, between.addresses[0])
        wait_until(lambda: len(of_peer(between)) == 4 and len(kept_back()) == 2)
    joined = next(one for one in of_peer(between) if one.remote_id and one.token == token)
    assert str(joined.remote) == SECOND
    say(between, joined, RemoveAddress((number,)))
    wait_until(lambda: len(kept_back()) == (of == "another connection"))
