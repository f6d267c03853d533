# SPDX-License-Identifier: Apache-2.0
"""What changed is told by tshark's field names, with the values before and after."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpPrio
from emptcp.packet.tcp import Nop, Timestamps
from emptcp.trace.diff import Change, changed

DSS = Dss(data_ack=7)
BEFORE = build(options=[Nop(), Nop(), Timestamps(1, 2), DSS])
GROWN = build(options=[Nop(), Nop(), Timestamps(1, 2), DSS, MpPrio(True)])


def test_nothing_changed_is_an_empty_list() -> None:
    assert changed(BEFORE, BEFORE) == []


def test_an_inserted_option_shows_what_it_brings_and_what_it_moves() -> None:
    found = {change.field: (change.old, change.new) for change in changed(BEFORE, GROWN)}
    assert found["tcp.options.mptcp.subtype"] == ("2", "2,5")
    assert found["tcp.options.mptcp.backup.flag"] == (None, "1")
    assert found["tcp.hdr_len"] == ("44", "48")
    assert found["ip.len"] == ("64", "68")
    assert "ip.ttl" not in found
    assert "tcp.seq_raw" not in found


def test_fields_stand_in_the_order_of_the_packet() -> None:
    names = [change.field for change in changed(BEFORE, GROWN)]
    assert names.index("ip.len") < names.index("tcp.hdr_len") < names.index("tcp.options.mptcp.subtype")
    gone = [change.field for change in changed(GROWN, BEFORE)]
    assert gone.index("tcp.options.mptcp.subtype") < gone.index("tcp.options.mptcp.backup.flag")


def test_a_window_that_was_capped_changes_only_itself_and_the_checksum() -> None:
    names = [change.field for change in changed(build(window=500), build(window=20))]
    assert names == ["tcp.window_size_value", "tcp.checksum"]


def test_a_difference_without_a_field_is_not_hidden() -> None:
    before, after = build(frame_length=60), build(frame_length=60)[:-1] + b"x"
    assert changed(before, after) == [Change("frame", before.hex(), after.hex())]


def test_old_and_new_are_what_tshark_prints(
    tmp_path: Path, tshark: Callable[..., list[dict[str, str]]]
) -> None:
    path = tmp_path / "both.pcap"
    records = b"".join(struct.pack("<IIII", 0, 0, len(one), len(one)) + one for one in (BEFORE, GROWN))
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + records)
    changes = changed(BEFORE, GROWN)
    before, after = tshark(path, [change.field for change in changes])
    assert {change.field: change.old or "" for change in changes} == before
    assert {change.field: change.new or "" for change in changes} == after
