# SPDX-License-Identifier: Apache-2.0
"""The flood arrives, and is stopped by those who say so; who lets it through is found out."""

from __future__ import annotations

import json
import shutil

import pytest

from emptcp.cli.main import main
from emptcp.errors import EmptcpError
from emptcp_bench import early_drop
from emptcp_bench.early_drop import FIGURES, FLOOR, KERNEL, NFT, TC, XDP
from emptcp_bench.live.attached import hosts

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

FRAMES = 2_000


def test_all_are_stopped_or_all_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "early-drop", "--json", "--quick"]) == 0
    answer = json.loads(capsys.readouterr().out)
    nft = [NFT] if shutil.which("nft") else []
    assert [row["stopped by"] for row in answer["rows"]] == [FLOOR, XDP, TC, *nft, KERNEL]
    assert all(row["arrived, %"] > 99 for row in answer["rows"] if row["stopped by"] != KERNEL)
    assert answer["figures"].keys() == FIGURES.keys()
    assert ("left out" in answer["how"]) is not bool(nft)


def test_who_stops_nothing_is_found_out() -> None:
    with (
        hosts("test", rate=None) as lab,
        early_drop.listening(lab) as port,
        early_drop.Joins(lab, port) as joins,
    ):
        assert early_drop.turn(lab, joins, KERNEL, FRAMES).arrived > 0
        with pytest.raises(
            EmptcpError, match=r"SYNs stopped by emptcp, XDP, .* came to the socket instead of none"
        ):
            early_drop.turn(lab, joins, XDP, FRAMES)
