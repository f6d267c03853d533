# SPDX-License-Identifier: Apache-2.0
"""Every flow of the set is found, others are not, and `emptcp bench tables` answers for every size."""

from __future__ import annotations

import json

import pytest

from emptcp.cli.main import main
from emptcp.packet.decode import decode
from emptcp_bench import tables
from emptcp_bench.flows import BACKENDS

pytestmark = pytest.mark.kernel

WINDOW = slice(48, 50)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packets_of_flows_in_the_set_have_their_window_rewritten(backend: str) -> None:
    with tables.loaded(backend, 1_000) as runner:
        for number in (0, 49, 50, 999):
            before = tables.packet(number)
            after = runner.run(before).data
            assert after[WINDOW] == (int.from_bytes(before[WINDOW], "little") ^ tables.MASK).to_bytes(
                2, "little"
            )
            assert decode(after).valid
        other = tables.packet(1_000)
        assert runner.run(other).data == other


def test_the_quick_run_answers_for_every_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tables", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(one["hook"], one["flows"]) for one in answer["rows"]] == [
        (backend, f"{number:,}") for backend in BACKENDS for number in tables.QUICK_NUMBERS
    ]
    assert answer["figures"].keys() == {f"most_over_least_flows_{backend}" for backend in BACKENDS}
