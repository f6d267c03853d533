# SPDX-License-Identifier: Apache-2.0
"""What the plugin tells of the subflows that a trial saw."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from emptcp.api import ConnectionEntry, FlowEntry
from emptcp.chain import flows
from emptcp_actor_record import hooks

Told = Callable[..., list[dict[str, float]]]

SLOT = 80  # struct record_state
HEAD = 64  # struct emptcp_flow


def entries(policy: Any) -> list[FlowEntry]:
    """The flow table of a trial, subflows in the order of their ends."""
    start = HEAD + policy.states["record"]
    found = []
    for key, value in policy.shared.flows().items():
        (since,) = struct.unpack_from("=Q", value)
        state = {"record": value[start : start + SLOT]}
        found.append(FlowEntry(flows.endpoints(key), since, state, key))
    return sorted(found, key=lambda entry: entry.key)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """``told(policy)``: the metrics of each subflow; ``told(policy, tokens)``: of them as one connection."""

    def tell(policy: Any, *tokens: tuple[int, int]) -> list[dict[str, float]]:
        monkeypatch.setattr(hooks, "open_plugin_map", lambda plugin, name: policy.map(name).duplicate())
        found = entries(policy)
        if not tokens:
            return [dict(one) for one in hooks.emptcp_metrics(found)]
        known = [replace(entry, tokens=pair) for entry, pair in zip(found, tokens, strict=True)]
        whole = ConnectionEntry(tokens[0], tuple(known))
        return [dict(one) for one in hooks.emptcp_connection_metrics([whole])]

    return tell
