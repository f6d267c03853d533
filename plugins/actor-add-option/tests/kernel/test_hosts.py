# SPDX-License-Identifier: Apache-2.0
"""An option of the operator's own: put in at one host, selected and acted on at the other, live."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from emptcp.chain import apply, owned, pins, running
from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.policy import file

pytestmark = pytest.mark.kernel

SENT = random.Random(7).randbytes(2_000_000)
FALLBACKS = ("MPTcpExtDssFallback", "MPTcpExtMPFailTx", "MPTcpExtDataCsumErr", "TcpInCsumErrors")


def table(name: str, hook: str, when: str, do: str) -> str:
    text = f'table = "{name}"\n[[policy]]\nname = "p"\nhook = "{hook}"\ndev = "path*"\n'
    return f'{text}{when}\ndo = ["{do}"]\n'


OPTION = "exid=0xe0e1"
VALUED = "exid=0xe0e1, value=0x0102, size=2"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lab]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-option"))
    with two_hosts(link="veth", name=f"t{os.getpid()}o") as built:
        for host in (built.a, built.b):
            for path in built.paths:
                end = path.a if host is built.a else path.b
                host.run(["ethtool", "-K", end.device, "tx", "off"])
        yield built
        for name in apply.tables.names():
            apply.remove(name)


def selected() -> int:
    """How many packets the other host selected by the option."""
    tree = pins.find()
    assert tree is not None
    found = [owned.read_counters(one.counters, one.description) for one in running.everything(tree).values()]
    return sum(count.packets for counts in found for name, count in counts.items() if name == "act/p/record")


@pytest.mark.parametrize(
    ("option", "forth"), [(OPTION, True), (VALUED, False)], ids=["in data", "with a value, in ACKs"]
)
def test_what_one_host_puts_in_the_other_selects_and_not_a_byte_changes(
    lab: Lab, option: str, forth: bool
) -> None:
    """Data of one way has room for the bare option, and ACKs for one with a value."""
    before = [{name: host.counters()[name] for name in FALLBACKS} for host in (lab.a, lab.b)]
    with ExitStack() as stack:
        address = lab.paths[0].b.address(4)
        listener = stack.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
        client = stack.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
        client.connect((address, listener.getsockname()[1]))
        server = stack.enter_context(listener.accept()[0])
        server.settimeout(10)
        act = table("act", "ingress", f'when = "option({option})"', "record('packets')")
        apply.apply(file.loads(act), lab.b.netns)
        apply.apply(file.loads(table("add", "egress", "", f"add_option({option})")), lab.a.netns)
        sender, receiver = (client, server) if forth else (server, client)
        sending = threading.Thread(target=sender.sendall, args=(SENT,))
        sending.start()
        received = bytearray()
        while len(received) < len(SENT):
            part = receiver.recv(1 << 16)
            assert part
            received += part
        sending.join(10)
    assert bytes(received) == SENT
    assert selected() > 20
    assert [{name: host.counters()[name] for name in FALLBACKS} for host in (lab.a, lab.b)] == before
