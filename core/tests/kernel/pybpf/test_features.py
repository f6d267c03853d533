# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re

import pytest

from emptcp.pybpf import BpfError, Program, features
from emptcp.pybpf.descriptor import ids
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel


def kernel() -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert match is not None
    return int(match[1]), int(match[2])


@pytest.mark.parametrize("name", sorted(features.FEATURES))
def test_a_kernel_that_is_new_enough_has_the_feature(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMPTCP_DISABLE", raising=False)
    since = features.FEATURES[name].since
    if since and kernel() < since:
        assert not features.has(name)
        assert features.reason(name)
    else:
        assert features.reason(name) == ""


def test_probing_leaves_nothing_behind() -> None:
    features._probed.cache_clear()
    for name in features.FEATURES:
        features.has(name)

    def left() -> list[int]:
        return [number for number in ids("bpf_prog_get_next_id") if _name(number) == "emptcp_probe"]

    # The kernel frees what was attached a moment later.
    wait_until(lambda: not left(), told=left)


def _name(number: int) -> str:
    try:
        with Program.from_id(number) as program:
            return program.info.name
    except BpfError:
        return ""
