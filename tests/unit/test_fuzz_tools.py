# SPDX-License-Identifier: Apache-2.0
"""The fuzzer's own parts: the judge sees every damage, findings get small, a seed gives the same again."""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import IPv4Address
from pathlib import Path
from random import Random
from typing import Any

import pytest

from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import AddAddress, Dss, MpPrio
from emptcp.packet.tcp import Other, Timestamps
from emptcp_sdk.fuzz import finding, judge
from emptcp_sdk.fuzz.mutations import mutated, repaired
from emptcp_sdk.fuzz.packets import LEGAL, Packet, packet
from emptcp_sdk.fuzz.search import Search

IP, TCP, OPTIONS, PAYLOAD = 14, 34, 54, 74
HERE = {"options": [Timestamps(1, 2), Dss(1, wide_ack=False)], "payload": b"data", "tos": 2, "trailer": b"ab"}
GOOD = Packet(build(**HERE))
NOTHING = judge.Allowed()


def spoiled(at: int, *, right: bool = True) -> bytes:
    """Return the packet with one bit of a byte turned, its checksums right again or not."""
    data = bytearray(GOOD.data)
    data[at] ^= 1
    return repaired(Packet(bytes(data))).data if right else bytes(data)


@pytest.mark.parametrize(
    ("at", "what"),
    [
        (0, "in front of IP"),
        (IP + 8, "IP's header"),
        (TCP, "a port"),
        (TCP + 4, "the field seq"),
        (TCP + 8, "the field ack"),
        (TCP + 12, "a reserved bit"),
        (TCP + 13, "the field flags"),
        (TCP + 15, "the field window"),
        (TCP + 19, "the field urgent"),
        (OPTIONS + 3, "an option that was not acted on"),
        (OPTIONS + 20, "the payload"),
        (-1, "behind the packet"),
    ],
)
def test_the_judge_sees_each_change(at: int, what: str) -> None:
    complaint = judge.complaint(GOOD, spoiled(at), NOTHING)
    assert complaint is not None
    assert what in complaint


def test_the_judge_sees_a_checksum_that_was_not_brought_along() -> None:
    allowed = judge.Allowed(fields=frozenset({"window"}))
    assert judge.complaint(GOOD, spoiled(TCP + 15), allowed) is None
    wrong = judge.complaint(GOOD, spoiled(TCP + 15, right=False), allowed)
    assert wrong == "TCP's checksum is off by another amount"


def test_the_judge_sees_a_checksum_of_ip_that_was_changed() -> None:
    complaint = judge.complaint(GOOD, spoiled(IP + 11, right=False), NOTHING)
    assert complaint == "IP's checksum is off by another amount"


def test_a_packet_that_must_not_change_is_known() -> None:
    fragment = Packet(build(**HERE, fragment=(0, True)))
    changed = fragment.data[: TCP + 15] + b"\x01" + fragment.data[TCP + 16 :]
    allowed = judge.Allowed(fields=frozenset({"window"}))
    assert judge.complaint(fragment, changed, allowed) == "a packet was changed that must not be"


def test_what_is_allowed_passes_and_only_that() -> None:
    ack, longer = Packet(build(options=[Dss(1)])), build(options=[Dss(1), MpPrio(True)])
    assert judge.complaint(ack, longer, judge.Allowed(insert=judge.Options({5}))) is None
    assert judge.complaint(ack, longer, judge.Allowed(insert=judge.Options({3}))) is not None
    assert judge.complaint(ack, longer, judge.Allowed(rewrite=judge.Options({5}))) is not None
    marked = build(**{**HERE, "tos": 3})
    assert judge.complaint(GOOD, marked, judge.Allowed(fields=frozenset({"ecn"}))) is None
    assert judge.complaint(GOOD, marked, NOTHING) is not None


ACK, PRIO, TIME, MINE = Dss(1), MpPrio(True), Timestamps(1, 2), Other(253, b"\xe0\xe1")
PRIOS, KINDS = judge.Options({5}), judge.Options(kinds={253})
HELD = "an option that was not acted on was changed"
GONE = "a subflow's packet has nothing of one left"
NEW = AddAddress(1, IPv4Address("10.0.0.9"), hmac=bytes(8))


@pytest.mark.parametrize(
    ("before", "after", "allowed", "said"),
    [
        ([ACK, PRIO], [ACK, b"\x01" * 3], judge.Allowed(remove=PRIOS), None),
        ([ACK, PRIO], [ACK, b"\x01" * 3], judge.Allowed(insert=PRIOS, rewrite=PRIOS), HELD),
        ([ACK, PRIO], [ACK, MpPrio(False)], judge.Allowed(rewrite=PRIOS), None),
        ([ACK, PRIO], [ACK, MpPrio(False)], judge.Allowed(insert=PRIOS, remove=PRIOS), None),
        ([ACK, PRIO], [ACK, MpPrio(False)], judge.Allowed(insert=PRIOS), HELD),
        ([ACK, b"\x01" * 4], [ACK, MINE], judge.Allowed(insert=KINDS), None),
        ([ACK, b"\x01" * 4], [ACK, Other(254, MINE.value)], judge.Allowed(insert=KINDS), HELD),
        ([ACK, TIME, b"\x01" * 4], [TIME, ACK, MINE], judge.Allowed(insert=KINDS), HELD),
        ([ACK, MINE], [b"\x01" * len(ACK.encode()), MINE], judge.Allowed(remove=PRIOS), HELD),
        ([NEW], [b"\x01" * 16], judge.Allowed(remove=judge.Options({3})), None),
        ([NEW], [b"\x01" * 16], judge.Allowed(remove=judge.Options({3}), established=True), GONE),
        ([NEW, ACK], [b"\x01" * 16, ACK], judge.Allowed(remove=judge.Options({3}), established=True), None),
    ],
)
def test_options_come_go_and_change_as_is_allowed(
    before: list[Any], after: list[Any], allowed: judge.Allowed, said: str | None
) -> None:
    packet = Packet(build(options=before))
    assert judge.complaint(packet, build(options=after), allowed) == said


def test_a_finding_gets_small_and_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_FUZZ_FINDINGS", str(tmp_path))
    large = Packet(build(**{**HERE, "payload": bytes(range(200))}))

    def fails(one: Packet) -> bool:
        return b"\x64\x65" in one.data

    small = finding.minimised(large, fails)
    assert fails(small)
    assert small.data.strip(b"\0") == b"\x64\x65"
    text = finding.report("it fails", small, "Order()", 7)
    (written,) = tmp_path.iterdir()
    assert written.read_text(encoding="utf-8") in text
    assert "seed 7" in text
    assert small.data.hex() in text


def test_a_seed_gives_the_same_search_again() -> None:
    def searched(seed: int) -> list[bytes]:
        seen: list[bytes] = []

        def try_packet(one: Packet, _random: Random) -> list[Hashable]:
            seen.append(one.data)
            return [len(one.data)]

        Search(try_packet, seed).run(0, at_least=100)
        return seen[:100]

    assert searched(3) == searched(3)
    assert searched(3) != searched(4)


def test_the_grammar_has_packets_of_every_kind() -> None:
    random = Random(1)
    made = [packet(random) for _ in range(2000)]
    made += [mutated(random, one) for one in made[:500]]
    seen = [decode(one.data, one.link) for one in made]
    assert {one.reason.value if one.reason else "ok" for one in seen} >= {
        *("ok", "fragment", "truncated", "bad_header", "too_many_headers", "routing_header"),
        *("length_unknown", "signed", "syn_data", "not_tcp"),
    }
    assert {subtype for one in seen for subtype in one.subtypes} == set(range(9))
    assert {one.tcp_checksum_right for one in seen} == {True, False, None}
    assert AddAddress(0, decode(build()).ip.src, version=0).encode()[:3] in {raw[:3] for raw in LEGAL}  # type: ignore[union-attr]
