# SPDX-License-Identifier: Apache-2.0
"""What is measured on live flows does its work there, and each benchmark answers every question."""

from __future__ import annotations

import json
from itertools import accumulate
from operator import xor

import pytest

from emptcp.cli.main import main
from emptcp.packet.decode import decode
from emptcp.pybpf import Statistics
from emptcp_bench import cpu, flows
from emptcp_bench.flows import BACKENDS, CHAINS
from emptcp_bench.live import chains
from emptcp_bench.live.attached import Attached, hosts, spent
from emptcp_bench.live.traffic import Flows
from emptcp_bench.packets import packets

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

WINDOW = slice(48, 50)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_actor_rewrites_every_packet_of_live_flows(backend: str) -> None:
    before = packets()["selected"]
    with (
        hosts("test") as lab,
        chains.loaded(lab, CHAINS, backend) as runners,
        Flows(lab, 5) as there,
        Statistics.switch_on(),
    ):
        for name, (_, actors) in CHAINS.items():
            program = runners[name].loaded.program
            with Attached(lab, program, backend):
                there.run(0.3)
            counts = {stage: one for stage, one in runners[name].counts().items() if chains.ACTOR in stage}
            passed = {one.packets for one in counts.values()}
            assert len(counts) == actors
            assert len(passed) == 1
            assert 0 < passed.pop() <= spent(program).runs
            after = program.test_run(before).data
            flipped = (int.from_bytes(one[WINDOW], "little") for one in (before, after))
            assert xor(*flipped) == list(accumulate(chains.masks(actors), xor))[-1]
            assert decode(after).valid
        chains.check(runners)
        received = lab.b.counters()
    assert there.sent > 1_000_000
    assert received.get("TcpInCsumErrors", 0) == 0
    assert received.get("MPTcpExtMPFailTx", 0) == 0


def test_flows_that_end_are_followed_by_others() -> None:
    with hosts("test", rate=None) as lab, Flows(lab, 20, endless=1) as there:
        first = there.endless
        for _ in range(40):
            there.run(0.25)
            if len(there.seconds) >= 20:
                break
        assert len(there.seconds) >= 20
        assert len(there) == 20
        assert there.endless == first


def quick(benchmark: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["bench", benchmark, "--json", "--quick"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    assert answer["benchmark"] == benchmark
    return answer


def test_flows_answers_for_every_chain(capsys: pytest.CaptureFixture[str]) -> None:
    answer = quick("flows", capsys)
    rows = answer["rows"]
    assert isinstance(rows, list)
    assert [(one["flows"], one["hook"], one["program"]) for one in rows] == [
        (f"{number}", backend, name)
        for number in flows.QUICK_NUMBERS
        for backend in BACKENDS
        for name in (chains.EMPTY, *CHAINS)
    ]
    assert all(one["packets/s"] > 0 for one in rows)


def test_granularity_answers_for_every_selector(capsys: pytest.CaptureFixture[str]) -> None:
    rows = quick("granularity", capsys)["rows"]
    assert isinstance(rows, list)
    assert len(rows) == 5 * len(BACKENDS)
    assert {one["takes"] for one in rows} >= {chains.EMPTY, "every packet", "one path", "one flow"}


def test_throughput_answers_for_every_chain(capsys: pytest.CaptureFixture[str]) -> None:
    rows = quick("throughput", capsys)["rows"]
    assert isinstance(rows, list)
    assert [(one["hook"], one["program"]) for one in rows] == [
        (backend, name) for backend in BACKENDS for name in (chains.EMPTY, *CHAINS)
    ]


def test_cpu_answers_for_every_transfer(capsys: pytest.CaptureFixture[str]) -> None:
    rows = quick("cpu", capsys)["rows"]
    assert isinstance(rows, list)
    assert [(one["transfer"], one["hook"]) for one in rows] == [
        (setting.name, backend) for setting in cpu.SETTINGS for backend in BACKENDS
    ]
