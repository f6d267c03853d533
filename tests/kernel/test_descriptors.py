# SPDX-License-Identifier: Apache-2.0
"""A process that works for days: what a command opens in the kernel is closed when it returns.

Python's garbage collector is off meanwhile, and errors are kept, so that nothing is closed by chance.
"""

from __future__ import annotations

import gc
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from emptcp import pybpf
from emptcp.chain import apply, edits, entries, health, running, switches
from emptcp.errors import EmptcpError
from emptcp.lab.path import Path
from emptcp.lab.sockets import listen, mptcp_socket
from emptcp.lab.topology import Lab, two_hosts
from emptcp.policy import file

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

ROUNDS = 2
IDS = ("map_id:", "prog_id:", "link_id:", "btf_id:")
PASS = bytes.fromhex("b700000002000000 9500000000000000")

TABLE = """
table = "t"
engine = "{engine}"

[set.chosen]
key = "subflow"
size = 64

[[policy]]
name = "paced"
hook = "egress"
dev = ["path1"]
when = "subflow(dport={port}) or subflow in @chosen or packet_type('dss')"
do = ["rate_limit(rate={rate}mbit)", "record('goodput', 'bytes')"]

[[policy]]
name = "backup"
hook = ["ingress", "egress"]
dev = ["path1"]
when = "ip_pair(saddr=10.0.0.0/8)"
do = ["set_backup(on=true)", "blk_subflow()", "add_subflow()"]
"""

OTHER_ENGINE = """
table = "other"
engine = "{other}"

[[policy]]
name = "p"
hook = "ingress"
dev = ["path1"]
do = ["record('rtt')"]
"""

OCCUPIED = """
table = "other"

[[policy]]
name = "p"
hook = "ingress"
dev = ["path2", "path3"]
backend = "xdp"
do = ["record('rtt')"]
"""
"""Attached to one device, then refused by the other, then taken back."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two hosts with a connection, so that every plugin has somebody to tell, and a device that is taken."""
    with two_hosts([Path()] * 3, link="veth", name="fds") as made, ExitStack() as opened:
        listener = opened.enter_context(made.b.call(lambda: listen("0.0.0.0", timeout=30)))
        client = opened.enter_context(made.a.call(lambda: mptcp_socket("0.0.0.0", timeout=30)))
        client.connect((made.paths[0].b.address4, listener.getsockname()[1]))
        opened.enter_context(listener.accept()[0])
        opened.enter_context(made.a.call(lambda: somebody("path3")))
        yield made


def somebody(device: str) -> pybpf.Link:
    """Attach a program of somebody else's."""
    with pybpf.load_program("xdp", PASS, name="somebody") as program:
        return pybpf.Link.attach_xdp(program, socket.if_nametoindex(device), native=False)


def objects() -> set[str]:
    """Return the BPF objects that this process holds: a line of /proc/self/fdinfo with the id of each."""
    held = set()
    for number in os.listdir("/proc/self/fdinfo"):
        with suppress(FileNotFoundError), open(f"/proc/self/fdinfo/{number}") as about:
            held.update(line for line in about if line.startswith(IDS))
    return held


def command(lab: Lab, number: int) -> list[Exception]:
    """Change the table once in each of the ways that there are; return how what can't be done was refused."""
    engines = ("fused", "tail") if number % 2 else ("tail", "fused")
    values = {"engine": engines[0], "port": 1000 + number, "rate": 50}
    apply.apply(file.loads(TABLE.format(**values)), lab.a.netns)
    apply.edit("t", edits.tune("backup", ["set_backup", "on=false"]))
    apply.edit("t", edits.replace_stage("paced", "record", "record('packets')"))
    kept = [refused(lab, OTHER_ENGINE.format(other=engines[1])), refused(lab, OCCUPIED)]
    switches.off("t", "backup")
    switches.on("t", "backup")
    switches.off()
    switches.on()
    apply.apply(file.loads(TABLE.format(**values | {"rate": 40})), lab.a.netns, dry_run=True)
    apply.apply(file.loads(TABLE.format(**values | {"rate": 40})), lab.a.netns)
    apply.rollback()
    with entries.open_set("chosen") as chosen:
        chosen.add(["10.0.1.1:4000-10.0.1.2:443"])
    health.findings()
    apply.remove("t", "paced")
    apply.remove("t")
    return kept


def refused(lab: Lab, text: str) -> EmptcpError:
    with pytest.raises(EmptcpError) as caught:
        apply.apply(file.loads(text), lab.a.netns)
    return caught.value


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Python's garbage collector switched off."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("no_collector")
def test_commands_close_what_they_open(lab: Lab) -> None:
    kept = command(lab, 0)  # and what is loaded once for the life of a process
    held = objects()
    with warnings.catch_warnings(record=True) as forgotten:
        warnings.simplefilter("always", ResourceWarning)
        for number in range(1, ROUNDS + 1):
            kept += command(lab, number)
            assert objects() == held
    assert [str(one.message) for one in forgotten if one.category is ResourceWarning] == []
    assert running.everything() == {}
