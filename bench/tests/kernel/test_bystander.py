# SPDX-License-Identifier: Apache-2.0
"""What no policy wants passes as it was, by programs that do rewrite what is wanted."""

from __future__ import annotations

import json

import pytest

from emptcp.cli.main import main
from emptcp.packet.decode import decode
from emptcp_bench import programs
from emptcp_bench.bystander import CASES, FIGURES
from emptcp_bench.chain import BACKENDS, pairs, runs
from emptcp_bench.packets import packets

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

WINDOW = slice(48, 50)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bystanders_pass_untouched_where_wanted_packets_are_rewritten(backend: str) -> None:
    given = packets()
    measured = {name for name, _ in runs(backend, CASES)} - {"empty", "look_up"}
    with programs.loaded(backend, measured) as found:
        for name in measured:
            wanted = found[name].test_run(given["selected"]).data
            assert wanted[WINDOW] != given["selected"][WINDOW], name
            assert decode(wanted).valid, name
        for name, packet in runs(backend, CASES):
            assert found[name].test_run(given[packet], repeat=3).data == given[packet], (name, packet)


def test_the_quick_run_answers_every_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "bystander", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(one["hook"], one["packet"], one["against"]) for one in answer["rows"]] == [
        (backend, case.title, against) for backend in BACKENDS for case, against in pairs(backend, CASES)
    ]
    assert answer["figures"].keys() == FIGURES.keys()
