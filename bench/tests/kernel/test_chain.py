# SPDX-License-Identifier: Apache-2.0
"""The programs do what they are measured for, and `emptcp bench chain` answers every question."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from emptcp import pybpf
from emptcp.cli.main import main
from emptcp.packet.decode import decode
from emptcp_bench import programs
from emptcp_bench.chain import BACKENDS, FIGURES, pairs, runs
from emptcp_bench.packets import packets

pytestmark = pytest.mark.kernel

WINDOW = slice(48, 50)


@pytest.fixture(scope="module", params=BACKENDS)
def loaded(request: pytest.FixtureRequest) -> Iterator[dict[str, pybpf.Program]]:
    with programs.loaded(request.param) as found:
        assert list(found) == programs.names(request.param)
        yield found


def test_a_selected_packet_has_its_window_rewritten_by_every_actor(
    loaded: dict[str, pybpf.Program],
) -> None:
    before = packets()["selected"]
    rewriting = {name: int(name.split("_")[-1]) for name in loaded if name[-1].isdigit()}
    assert len(rewriting) > 20
    for name, rewrites in rewriting.items():
        after = loaded[name].test_run(before).data
        flipped = bytes(one ^ other for one, other in zip(before[WINDOW], after[WINDOW], strict=True))
        assert flipped == ((1 << rewrites) - 1).to_bytes(2, "little"), name
        assert decode(after).valid, name
        assert loaded[name].test_run(before, repeat=2).data == before, name


@pytest.mark.parametrize("packet", ["missed", "plain", "udp"])
def test_what_is_not_meant_passes_untouched(loaded: dict[str, pybpf.Program], packet: str) -> None:
    before = packets()[packet]
    answers = {program.test_run(before).retval for program in loaded.values()}
    assert all(program.test_run(before).data == before for program in loaded.values())
    assert len(answers) == 1


def test_the_quick_run_answers_every_question_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "chain", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == 1
    assert {(one["backend"], one["program"], one["packet"]) for one in answer["costs"]} == {
        (backend, *run) for backend in BACKENDS for run in runs(backend)
    }
    assert [(one["backend"], one["case"], one["against"]) for one in answer["comparisons"]] == [
        (backend, case.title, against) for backend in BACKENDS for case, against in pairs(backend)
    ]
    for one in answer["costs"]:
        assert 0 < one["ns"]["min"] <= one["ns"]["median"] <= one["ns"]["max"]
    assert answer["figures"].keys() == FIGURES.keys()
    assert all(value is None or value > 0 for value in answer["figures"].values())
