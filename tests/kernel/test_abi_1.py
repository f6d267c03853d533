# SPDX-License-Identifier: Apache-2.0
"""A wheel that was built against chain ABI 1 goes on working. It is never built anew."""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from emptcp.plugins import discovery, state
from emptcp.plugins.manager import Manager
from emptcp_sdk.packets import Dss, build
from emptcp_sdk.testing import Everywhere

pytestmark = pytest.mark.kernel

WHEEL = Path(__file__).parents[1] / "third_party" / "abi_1" / "someones_mark_ce-2.3-py3-none-any.whl"
ACK, ECT, CE = Dss(data_ack=1), 2, 3


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unpack the wheel, which is all that installing it is, and enable the plugin."""
    site = tmp_path / "site"
    with zipfile.ZipFile(WHEEL) as archive:
        archive.extractall(site)
    monkeypatch.setenv("EMPTCP_ETC", str(tmp_path / "etc"))
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    state.enable("mark_ce")
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "someones_mark_ce"]:
        del sys.modules[name]


def test_it_is_enabled_and_its_hooks_are_called(installed: None) -> None:
    plugin = state.one(state.judged(), "mark_ce")
    assert (plugin.state, plugin.version) == (discovery.ENABLED, "2.3")
    manager = Manager(report=lambda failure: None)
    manager.load([plugin])
    assert (manager.names, manager.failures) == (["mark_ce"], [])


def test_it_acts_at_every_place_and_keeps_its_state(installed: None, run_packet: Everywhere) -> None:
    packet, marked = build(tos=ECT, options=[ACK]), build(tos=CE, options=[ACK])
    out = [run_packet(packet, "mark_ce(every=3)").data for _ in range(6)]
    assert out == [packet, packet, marked] * 2
