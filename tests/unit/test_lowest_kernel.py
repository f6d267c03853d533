# SPDX-License-Identifier: Apache-2.0
"""The lowest kernel of each of our plugins, which the lane `vm-5.10` proves by loading every stage."""

from __future__ import annotations

import pytest

from emptcp.plugins import discovery, lowest, state
from emptcp.pybpf import since

PLUGINS = [plugin for plugin in discovery.discover() if state.is_first_party(plugin)]


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: str(plugin.name))
def test_every_stage_of_ours_runs_on_the_lowest_kernel(plugin: discovery.Plugin) -> None:
    assert lowest.of_plugin(plugin) == lowest.Lowest(since.BASE)
    assert {found.version for found in lowest.of_stages(plugin).values()} <= {since.BASE}


def test_a_socket_companion_that_needs_more_says_so_by_itself() -> None:
    (rate_limit,) = (plugin for plugin in PLUGINS if plugin.name == "rate_limit")
    (companion,) = lowest.of_sockets(rate_limit).values()
    assert companion.version == (5, 15)
    assert "bpf_get_netns_cookie in sock_ops programs (5.15)" in companion.text
