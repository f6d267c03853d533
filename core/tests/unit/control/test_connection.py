# SPDX-License-Identifier: Apache-2.0
"""The connections that a controller is handed, from records of the iterator's program."""

from __future__ import annotations

import math
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from emptcp.chain import flows
from emptcp.control.connection import Connection, Connections
from emptcp.control.path import Path
from emptcp.mptcp.measured import Measured, measured
from emptcp.mptcp.sockets import RECORD, SNDBUF_LIMITED, unpack

ESTABLISHED, CLOSE_WAIT, TIME_WAIT = 1, 8, 6
BACKUP, REQUESTED = 1, 2


def record(
    number: int = 1,
    *,
    token: int = 0xABC,
    family: int = 4,
    state: int = ESTABLISHED,
    flags: int = 0,
    **more: int,
) -> bytes:
    """Return a record of the subflow from port 4000 + number."""
    names = ("10.0.0.1", "10.0.0.2") if family == 4 else ("fd00::1", "fd00::2")
    local, remote = (ip_address(name).packed for name in names)
    numbers = {
        "snd_una": 0xFFFFFF00, "snd_nxt": 0x100, "write_seq": 0x300, "srtt": 160_000, "min_rtt": 15_000,
        "cwnd": 10, "mss": 1000, "pacing_rate": 5_000_000, "bytes_sent": 7000, "bytes_acked": 6000,
        "bytes_received": 50, "queued": 4096, "outstanding": 512, "rtt_deviation": 8000, "retransmissions": 3,
        "rate_delivered": 10, "rate_interval": 20_000,
    } | more  # fmt: skip
    base = Measured(
        local, remote, 2 if family == 4 else 10, 4000 + number, 443, state, flags, token, 0, 0,
        *(0,) * 12, bytes(8), bytes(8), *(0,) * 13,
    )  # fmt: skip
    return RECORD.pack(*base._replace(**numbers))


def seen(*records: bytes, connections: Connections | None = None, now: float = 0.0) -> list[Connection]:
    return (connections or Connections()).see(b"".join(records), now)


def test_numbers_come_in_seconds_and_bytes() -> None:
    (connection,) = seen(record())
    (one,) = connection.subflows
    assert (one.local, one.remote) == ((IPv4Address("10.0.0.1"), 4001), (IPv4Address("10.0.0.2"), 443))
    assert (one.rtt, one.min_rtt, one.rtt_deviation) == (0.02, 0.015, 0.002)
    assert (one.cwnd, one.pacing_rate, one.delivery_rate) == (10_000, 5e6, 500_000)
    assert (one.unacked, one.not_sent, one.retransmissions) == (0x200, 0x200, 3)
    assert (connection.queued, connection.unacked, connection.token) == (4096, 512, 0xABC)
    assert (connection.sent, connection.acked, connection.received) == (7000, 6000, 50)
    assert not connection.sndbuf_limited
    assert seen(record(flags=SNDBUF_LIMITED))[0].sndbuf_limited


def test_what_changed_is_seen_and_what_did_not_is_as_it_was() -> None:
    known = Connections()
    (connection,) = seen(record(1), record(2), connections=known)
    one, two = connection.subflows
    for queued, sent in ((5000, 7001), (5000, 7001), (4096, 7000)):
        first = record(1, queued=queued, bytes_sent=sent)
        assert seen(first, record(2), connections=known, now=1.0) == [connection]
        assert connection.subflows == (one, two)
        assert (connection.queued, one.sent, two.sent) == (queued, sent, 7000)
        assert (connection.sent, connection.age) == (sent + 7000, 1.0)


def test_the_same_record_is_the_same_subflow_to_everybody() -> None:
    raw = record(family=6)
    (subflow,) = unpack(raw)
    ((identity, one),) = measured(raw)
    assert subflow.endpoints == (IPv6Address("fd00::1"), 4001, IPv6Address("fd00::2"), 443)
    assert subflow.rtt_us == one.srtt / 8
    assert identity == raw[: len(identity)]


@pytest.mark.parametrize("family", [4, 6])
def test_its_key_is_that_of_sets_and_maps(family: int) -> None:
    from emptcp.policy.keys import KeyFormat

    ((_, one),) = measured(record(family=family))
    written = "10.0.0.2:443-10.0.0.1:4001" if family == 4 else "[fd00::2]:443-[fd00::1]:4001"
    assert one.key == KeyFormat(["endpoint", "endpoint"], symmetric=True).pack(written)
    assert len(one.key) == len(flows.key((ip_address("10.0.0.1"), 1), (ip_address("10.0.0.2"), 2)))


def test_a_subflow_without_a_sample_is_the_last_by_rtt_and_never_completes() -> None:
    (connection,) = seen(record(1, srtt=0, min_rtt=0xFFFFFFFF), record(2))
    fast, new = connection.subflows.by_rtt()
    assert (fast.local[1], new.local[1]) == (4002, 4001)
    assert (new.completion(), new.min_rtt) == (math.inf, 0.0)
    assert fast.completion(9488) == pytest.approx(2 * 0.02)  # 512 that wait and 9,488 more: a window


def test_objects_stay_from_tick_to_tick_and_closed_subflows_count_on() -> None:
    connections = Connections()
    (before,) = seen(record(1), record(2), connections=connections)
    first = before.subflows[0]
    (after,) = seen(record(1, bytes_sent=9000), connections=connections, now=2.5)
    assert after is before
    assert after.subflows[0] is first
    assert (after.age, after.sent) == (2.5, 9000 + 7000)


def test_only_open_subflows_are_shown() -> None:
    (connection,) = seen(record(1, state=CLOSE_WAIT), record(2, state=TIME_WAIT))
    assert [one.local[1] for one in connection.subflows] == [4001]
    assert seen(record(1, state=TIME_WAIT)) == []


def test_what_is_as_wanted_is_no_change() -> None:
    connections = Connections()
    (connection,) = seen(record(1), record(2, flags=REQUESTED), connections=connections)
    plain, spare = connection.subflows
    plain.backup, spare.backup = False, True
    plain.backup = True
    plain.backup = False
    assert list(connections.changes()) == []
    assert (plain.backup_by, spare.backup_by) == ("", "kernel")


def test_a_subflow_is_steered_to_one_of_the_paths_that_the_controller_has() -> None:
    left, right = Path("left", ("eth0",)), Path("right", ("eth1",))
    connections = Connections(links=(left, right))
    (connection,) = seen(record(1), connections=connections)
    (one,) = connection.subflows
    assert one.steer is None
    one.steer = "right"
    assert (one.steer, list(connections.changes())) == (right, [(one.key, "steer", 1)])
    connections.settle()
    one.steer = left
    assert list(connections.changes()) == [(one.key, "steer", 0)]
    one.steer = None
    assert list(connections.changes()) == [(one.key, "steer", None)]
    with pytest.raises(ValueError, match="no path 'middle', only left, right"):
        one.steer = "middle"


def test_settings_are_told_once_and_taken_back() -> None:
    connections = Connections()
    (connection,) = seen(record(1), connections=connections)
    (one,) = connection.subflows
    one.backup, one.rate = True, 1.25e6
    assert list(connections.changes()) == [(one.key, "backup", 1), (one.key, "rate", 1_250_000)]
    connections.settle()
    seen(record(1, flags=BACKUP), connections=connections)
    one.backup, one.rate = True, 1.25e6
    assert list(connections.changes()) == []
    assert one.backup_by == "controller"
    one.backup, one.rate = False, None
    assert list(connections.changes()) == [(one.key, "backup", 0), (one.key, "rate", None)]


def test_what_a_failed_tick_wanted_is_forgotten() -> None:
    connections = Connections()
    (connection,) = seen(record(1), connections=connections)
    connection.subflows[0].backup = True
    connections.abandon()
    assert list(connections.changes()) == []
    assert not connection.subflows[0].backup


def test_settings_of_before_are_in_force_and_go_with_their_subflows() -> None:
    ((_, here), (_, gone)) = measured(record(1) + record(2))
    connections = Connections({here.key: {"backup": 1}, gone.key: {"rate": 5000}})
    (connection,) = seen(record(1, flags=BACKUP), connections=connections)
    (one,) = connection.subflows
    one.backup = True
    assert list(connections.changes()) == [(gone.key, "rate", None)]
    connections.settle()
    seen(connections=connections)
    assert (one.key, "backup", None) in set(connections.changes())


def test_a_port_that_is_used_again_is_another_subflow_under_the_same_settings() -> None:
    connections = Connections()
    (old,) = seen(record(1), connections=connections)
    old.subflows[0].backup = True
    connections.settle()
    (new,) = seen(record(1, token=0xDEF), connections=connections)
    assert new is not old
    new.subflows[0].backup = False
    assert list(connections.changes()) == [(new.subflows[0].key, "backup", 0)]


def test_rates_are_a_vector_by_subflow_or_path() -> None:
    paths = {4001: Path("dsl"), 4002: Path("lte")}
    connections = Connections(path_of=lambda one: paths.get(one.local[1]))
    (connection,) = seen(record(1), record(2), record(3), connections=connections)
    dsl, lte, other = connection.subflows
    connection.rates = {"lte": 2e6, other: 1e6}
    assert connection.rates == {dsl: None, lte: 2_000_000, other: 1_000_000}
    assert connection.subflows.on("lte") == (lte,)
    with pytest.raises(ValueError, match="more than 0"):
        dsl.rate = 0


def test_paths_are_blocked_until_they_are_allowed_or_open_until_they_are_blocked() -> None:
    connections = Connections(doors={"dsl": True, "lte": True, "sat": False})
    (connection,) = seen(record(1), connections=connections)
    assert connection.blocked == {"dsl", "lte"}
    connection.allow("lte", Path("sat"))
    assert connection.blocked == {"dsl"}
    # Addresses that are announced reach who is allowed any path.
    told = [(connection.key, "allow lte", 1), (connection.key, "allow", 1)]
    assert list(connections.changes()) == told
    connections.settle()
    connection.allow("lte")
    connection.block("sat")
    assert list(connections.changes()) == [(connection.key, "block sat", 1)]
    connection.block("lte")
    assert connection.blocked == {"dsl", "lte", "sat"}
    assert set(connections.changes()) == {
        (connection.key, "allow lte", None),
        (connection.key, "allow", None),
        (connection.key, "block sat", 1),
    }


def test_a_path_that_it_was_not_given_or_may_not_block_is_refused() -> None:
    (connection,) = seen(record(1), connections=Connections(doors={"dsl": True}))
    with pytest.raises(ValueError, match="it has no path 'lte', only dsl"):
        connection.allow("lte")
    (connection,) = seen(record(1))
    with pytest.raises(PermissionError, match="it sets 'block', which its manifest does not say"):
        connection.block("dsl")


def test_what_connections_are_allowed_is_taken_over_and_ends_with_them() -> None:
    key = (0xABC).to_bytes(4, "little")
    gone = (0xDEF).to_bytes(4, "little")
    before = {"allow lte": 1, "allow": 1}
    connections = Connections({key: before, gone: {"allow": 1}}, doors={"lte": True})
    (connection,) = seen(record(1), connections=connections)
    assert connection.blocked == set()
    assert list(connections.changes()) == [(gone, "allow", None)]
    connections.settle()
    assert list(connections.changes()) == []
    seen(record(1, state=TIME_WAIT), connections=connections)
    assert set(connections.changes()) == {(key, "allow lte", None), (key, "allow", None)}


def test_paths_that_name_one_link_share_it() -> None:
    dsl, lte, both = Path("dsl", links=("a",)), Path("lte", links=("b",)), Path("x", links=("b", "c"))
    assert lte.shares_link_with(both)
    assert not dsl.shares_link_with(both)
