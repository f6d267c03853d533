# SPDX-License-Identifier: Apache-2.0
"""`emptcp bench verifier` loads every stage and chains that do their work."""

from __future__ import annotations

import json

import pytest

from emptcp.chain.dryrun import Runner
from emptcp.cli.main import main
from emptcp.packet.decode import decode
from emptcp_bench.packets import packets, wanted
from emptcp_bench.verifier import BACKENDS, LIMIT, STAGES, policies

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

WINDOW = slice(48, 50)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stages", STAGES)
def test_each_actor_of_a_chain_rewrites_the_window(backend: str, stages: int) -> None:
    before = packets()["selected"]
    assert wanted() in policies()["chain of 2"].selectors[0].parameters
    with Runner([policies()[f"chain of {stages}"]], "ingress", backend) as runner:
        after = runner.run(before).data
    flipped = bytes(one ^ other for one, other in zip(before[WINDOW], after[WINDOW], strict=True))
    actors = max(1, stages - 1)
    assert flipped == ((1 << actors) - 1).to_bytes(2, "little")
    assert decode(after).valid


def test_the_quick_run_tells_what_was_visited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "verifier", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {one["policy"] for one in answer["rows"]} == policies().keys()
    for one in answer["rows"]:
        assert 0 < one["visited"] < LIMIT
        assert one["load, ms"]["min"] > 0
    chains = [one["visited"] for one in answer["rows"] if one["policy"].startswith("chain of")]
    assert chains[-1] > chains[0]
