# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import re
import time

import pytest

from emptcp.control.connection import Connection as Known
from emptcp.control.connection import Connections
from emptcp.hooks import devices
from emptcp.mptcp.routes import device_indexes
from emptcp.mptcp.sockets import SubflowReader, subflows
from emptcp_sdk.testing import wait_until

from .conftest import Connection, Hosts, run

pytestmark = pytest.mark.kernel


def test_both_ends_see_the_same_subflows(hosts: Hosts, connection: Connection, reader: SubflowReader) -> None:
    here, there = connection.subflows(reader, hosts.us), connection.subflows(reader, hosts.peer)
    turned = {(s.remote, s.remote_port, s.local, s.local_port) for s in there}
    assert {s.endpoints for s in here} == turned


def test_sequence_numbers_of_an_idle_connection_meet(
    hosts: Hosts, connection: Connection, reader: SubflowReader
) -> None:
    there = {s.remote_port: s for s in connection.subflows(reader, hosts.peer)}
    for subflow in connection.subflows(reader, hosts.us):
        other = there[subflow.local_port]
        assert (subflow.snd_una, subflow.snd_nxt) == (other.rcv_nxt, other.rcv_nxt)
        assert subflow.rcv_nxt == other.snd_nxt
        assert (subflow.send_scale, subflow.receive_scale) == (other.receive_scale, other.send_scale)
        assert subflow.timestamps


def test_token_and_ids_are_those_of_ss(hosts: Hosts, connection: Connection, reader: SubflowReader) -> None:
    command = ["ss", "-tinH", "state", "established", f"( dport = {connection.client.getpeername()[1]} )"]
    text = run(hosts.us, command)
    pattern = re.compile(r"token:\w+\(id:(\d+)\)/(\w+)\(id:(\d+)\)")
    told = {(int(own, 16), int(local), int(remote)) for remote, own, local in pattern.findall(text)}
    # For the first subflow ss tells its own host's token, for a joined one the peer's too.
    read = {(s.token, s.local_id, s.remote_id) for s in connection.subflows(reader, hosts.us)}
    assert {ids[1:] for ids in read} == {ids[1:] for ids in told}
    assert {ids[0] for ids in told} <= {ids[0] for ids in read}


def test_the_device_is_that_of_the_path(hosts: Hosts, connection: Connection, reader: SubflowReader) -> None:
    found = connection.subflows(reader, hosts.us)
    names = {device.ifindex: device.name for device in devices.list_devices(hosts.us)}
    assert [names[index] for index in device_indexes(hosts.us, found)] == ["path1", "path2"]


def test_what_a_reader_leaves_unread_waits_in_the_connection(
    hosts: Hosts, connection: Connection, reader: SubflowReader
) -> None:
    port = connection.client.getpeername()[1]
    connection.client.setblocking(False)
    found = Connections()

    def look() -> Known:
        (seen,) = found.see(reader.records(hosts.us), time.monotonic())
        return seen

    written = 0

    def fill() -> None:
        nonlocal written
        with contextlib.suppress(BlockingIOError):
            while True:
                written += connection.client.send(bytes(1 << 16))

    assert not look().sndbuf_limited
    fill()
    wait_until(lambda: look().sndbuf_limited, meanwhile=fill)
    wait_until(lambda: (seen := look()).queued and seen.acked + seen.unacked + seen.queued >= written)
    seen = look()
    for one in seen.subflows:
        assert one.remote[1] == port
        assert 0 < one.min_rtt <= 10 * one.rtt
        assert one.cwnd >= one.mss > 500
        assert one.pacing_rate > 0
        assert one.acked <= one.sent + 1
    assert seen.sent + 2 >= seen.acked > 0
    assert seen.received == sum(one.received for one in seen.subflows)


def test_a_namespace_without_connections_has_no_subflows(hosts: Hosts) -> None:
    assert subflows(hosts.us) == []
