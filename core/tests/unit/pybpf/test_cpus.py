# SPDX-License-Identifier: Apache-2.0
"""The numbers of CPUs, as the kernel lists them."""

from __future__ import annotations

import pytest

from emptcp.pybpf import cpu_ids
from emptcp.pybpf.cpus import POSSIBLE, highest


@pytest.mark.parametrize(
    ("text", "expected"), [("0\n", 0), ("0-1\n", 1), ("0,2-3,8\n", 8), ("0-9,64-127\n", 127)]
)
def test_the_highest_number_counts_not_how_many_there_are(text: str, expected: int) -> None:
    assert highest(text) == expected


def test_a_list_without_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="max"):
        highest("\n")


def test_this_machine_tells() -> None:
    assert cpu_ids() == highest(POSSIBLE.read_text()) + 1
