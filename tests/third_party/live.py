# SPDX-License-Identifier: Apache-2.0
"""What a stranger's actor does to a live connection. Run as a program, in an environment of wheels alone.

The connection is there before the policy. Prints JSON: the marked packets that host b counted before and
after the policy came, whether every byte arrived, whether the connection stayed MPTCP, and what
`emptcp connections` tells of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from socket import socket
from typing import Any

from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts

SENT = bytes(range(256)) * 4000
POLICY = """
table = "strange"
[[policy]]
name = "tell of congestion"
hook = "egress"
dev = "path*"
netns = "{netns}"
do = ["mark_ce(every=5)"]
"""


def emptcp(*arguments: str | Path) -> str:
    """Run the command line of the environment whose Python runs this."""
    command = [Path(sys.executable).with_name("emptcp"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def send(sender: socket, receiver: socket) -> bytes:
    """Send all of SENT, and return what arrived."""
    sending = threading.Thread(target=sender.sendall, args=(SENT,))
    sending.start()
    received = bytearray()
    while len(received) < len(SENT) and (part := receiver.recv(1 << 16)):
        received += part
    sending.join(20)
    return bytes(received)


def marked_at(lab: Lab) -> int:
    """Return how many packets that say "congestion experienced" came to host b."""
    return lab.b.counters()["IpExtInCEPkts"]


def act(lab: Lab, folder: Path) -> dict[str, Any]:
    """Send over one connection, apply the policy, and send again."""
    for host in (lab.a, lab.b):
        host.set("net.ipv4.tcp_ecn", 1)
    with ExitStack() as stack:
        address = lab.paths[0].b.address(4)
        listener = stack.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=20)))
        client = stack.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=20)))
        client.connect((address, listener.getsockname()[1]))
        server = stack.enter_context(listener.accept()[0])
        server.settimeout(20)
        intact = [send(client, server) == SENT]
        before = marked_at(lab)
        file = folder / "strange.toml"
        file.write_text(POLICY.format(netns=lab.a.netns), encoding="utf-8")
        emptcp("apply", file, "--guard-window", "0")
        intact.append(send(client, server) == SENT)
        told = json.loads(emptcp("connections", "--json", "--netns", lab.a.netns))
        found = {"before": before, "after": marked_at(lab), "intact": intact, "mptcp": mptcp_info(server)[0]}
        emptcp("remove", "strange")
        return {**found, "connections": told}


if __name__ == "__main__":
    with two_hosts(link="veth", name="strange") as built:
        print(json.dumps(act(built, Path(sys.argv[1]))))
