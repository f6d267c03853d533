# SPDX-License-Identifier: Apache-2.0
"""`emptcp connections` on a live connection: what sockets and plugins say, and the backup bit."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from emptcp.lab.path import Path
from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket
from emptcp.lab.topology import Lab, two_hosts
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.traffic, pytest.mark.usefixtures("instance")]

RTT = {"path1": 0.020, "path2": 0.050}
RECORD = """
table = "recorded"
[[policy]]
name = "r"
hook = ["ingress", "egress"]
dev = ["path*"]
do = ["record('rtt', 'bytes')"]
"""
BACKUP = """
table = "steered"
[[policy]]
name = "s"
hook = ["ingress", "egress"]
dev = ["path1"]
do = ["set_backup(on=true)"]
"""
SIZE = 200_000

Write = Callable[..., str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts([Path(rtt=RTT["path1"]), Path(rtt=RTT["path2"])], name="live") as made:
            yield made


def echo(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(20)
        while data := connection.recv(65536):
            connection.sendall(data)


@contextmanager
def connection(lab: Lab) -> Iterator[socket.socket]:
    """Open a connection of two subflows from host a to a server at host b that sends back what it gets."""
    listener = lab.b.call(lambda: listen("0.0.0.0", timeout=30))
    server = threading.Thread(target=echo, args=(listener,))
    with listener:
        client = lab.a.call(lambda: mptcp_socket(lab.paths[0].b.address4, timeout=30))
        server.start()
        try:
            client.connect((lab.paths[0].b.address4, listener.getsockname()[1]))
            exchange(client, 1000)
            wait_until(lambda: mptcp_info(client)[1] == 2)
            yield client
        finally:
            client.close()
            server.join(20)


def exchange(client: socket.socket, size: int = SIZE) -> None:
    """Send bytes and wait until all have come back."""
    sender = threading.Thread(target=client.sendall, args=(bytes(size),))
    sender.start()
    left = size
    while left:
        left -= len(client.recv(left))
    sender.join()


def rows(emptcp: Any, lab: Lab, netns: str) -> dict[str, dict[str, Any]]:
    """Return the subflows of the one connection of a namespace, by the path they use."""
    said = emptcp("connections", "--json", "--netns", netns)
    assert said.code == 0, said.err
    data = json.loads(said.out)
    assert data["schema"] == 1
    live = [row for row in data["subflows"] if row["token"] is not None]
    assert len({row["token"] for row in live}) == 1
    by_address = {end.address4: path.name for path in lab.paths for end in (path.a, path.b)}
    found = {by_address[row["endpoints"][0][0]]: row for row in live}
    assert len(found) == len(live) == 2
    return found


def recorded(row: dict[str, Any]) -> float:
    return float(sum(value for name, value in row["metrics"].items() if name.startswith("bytes")))


def check_rtt(row: dict[str, Any], path: str) -> None:
    """Check what the kernel and what the plugin measured against how the path was made."""
    assert RTT[path] * 0.95 < row["rtt"] < RTT[path] + 0.1
    assert RTT[path] * 0.95 < row["metrics"]["rtt_min"] < RTT[path] + 0.02
    assert row["metrics"]["rtt_min"] <= row["metrics"]["rtt_mean"] < RTT[path] + 0.1


def test_a_live_connection_is_told_with_its_metrics_and_its_backup_bits(
    lab: Lab, emptcp: Any, write: Write
) -> None:
    assert emptcp("apply", write(RECORD), "--netns", lab.a.netns).code == 0
    with connection(lab) as client:
        exchange(client)
        first = rows(emptcp, lab, lab.a.netns)
        assert not any(row["backup"] or row["request_backup"] for row in first.values())
        # Both directions, with headers.
        assert 2 * SIZE < recorded(first["path1"]) + recorded(first["path2"]) < 3 * SIZE
        check_rtt(first["path1"], "path1")

        assert emptcp("apply", write(BACKUP, "backup.toml"), "--netns", lab.a.netns).code == 0
        assert {name: row["backup"] for name, row in rows(emptcp, lab, lab.a.netns).items()} == {
            "path1": True,
            "path2": False,
        }
        # The peer learns of it by a packet that is under way for half a round trip.
        wait_until(lambda: rows(emptcp, lab, lab.b.netns)["path1"]["backup"])
        exchange(client)
        second = rows(emptcp, lab, lab.a.netns)
        assert recorded(second["path2"]) - recorded(first["path2"]) > 2 * SIZE
        assert recorded(second["path1"]) - recorded(first["path1"]) < 0.1 * SIZE
        check_rtt(second["path2"], "path2")
        assert "yes" in emptcp("connections", "--netns", lab.a.netns).out

        assert emptcp("remove", "steered").code == 0
        wait_until(lambda: not rows(emptcp, lab, lab.b.netns)["path1"]["backup"])
        assert not rows(emptcp, lab, lab.a.netns)["path1"]["backup"]


def test_a_connection_that_no_policy_sees_is_told_by_its_socket_alone(lab: Lab, emptcp: Any) -> None:
    with connection(lab):
        found = rows(emptcp, lab, lab.a.netns)
        assert [row["metrics"] for row in found.values()] == [{}, {}]
        assert RTT["path1"] * 0.95 < found["path1"]["rtt"] < RTT["path1"] + 0.1
        # The other one has carried nothing yet: what is not measured is not told.
        assert found["path2"]["rtt"] is None or found["path2"]["rtt"] > RTT["path2"] * 0.95


def test_a_namespace_without_connections_has_none(netns: Callable[[], str], emptcp: Any) -> None:
    said = emptcp("connections", "--json", "--netns", netns())
    assert (said.code, json.loads(said.out)["subflows"]) == (0, [])
