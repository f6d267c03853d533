# SPDX-License-Identifier: Apache-2.0
"""`emptcp bench control`: what is set comes about, in the map, in packets and on live connections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emptcp.chain import running as programs
from emptcp.cli.main import main
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpPrio
from emptcp_bench.control import ENDPOINT, HELP, MEMORY, MPTCPD, SYSTEM_CALL, others, ours

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


def test_a_packet_is_looked_at_by_its_bytes() -> None:
    packet = build(options=[Dss(data_ack=1), MpPrio(backup=True)])
    assert ours.says(packet, backup=True)
    assert not ours.says(packet, backup=False)
    assert not ours.says(build(options=[Dss(data_ack=1)]), backup=False)
    assert decode(packet).valid


@pytest.mark.parametrize("way", [ours.by_system_call, ours.by_memory])
def test_what_is_set_is_in_the_map_and_in_the_next_packet(way: object) -> None:
    with way() as (in_map, in_packet):  # type: ignore[operator]
        assert in_map() > 0
        assert in_packet() > 0


def test_the_quick_run_measures_everything_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    assert main(["bench", "control", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    times = {one["what"]: one["us"] for one in answer["rows"]}
    assert {SYSTEM_CALL, MEMORY, ENDPOINT, HELP} < times.keys()
    measured = not others.missing()
    assert (MPTCPD in times) == measured
    assert (answer["figures"]["mptcpd_over_system_call"] is not None) == measured
    assert all(one is None or one["min"] > 0 for one in times.values())
    with programs.everything() as found:
        assert found == {}
