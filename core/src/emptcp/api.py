# SPDX-License-Identifier: Apache-2.0
"""All that a plugin may import of emptcp.

What stands here is kept: names are added, never taken away within one ``HOOK_API``. Costly parts are
imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError, did_you_mean
from emptcp.hookspecs import hookimpl, hookspec
from emptcp.plugins.occasions import (
    Action,
    Change,
    ConnectionEntry,
    Endpoint,
    Ends,
    FlowEntry,
    FlowStates,
    StageEvent,
)
from emptcp.plugins.versions import CHAIN_ABI, HOOK_API

if TYPE_CHECKING:
    from emptcp.chain.entries import Entries, open_map, open_set
    from emptcp.chain.flows import connection_of
    from emptcp.chain.lending import open_plugin_map
    from emptcp.control.connection import Connection, Subflows
    from emptcp.control.controller import Controller
    from emptcp.control.path import Path
    from emptcp.control.subflow import ConnectionSubflow
    from emptcp.hooks import devices, namespaces
    from emptcp.hooks.devices import Device
    from emptcp.mptcp import keys
    from emptcp.mptcp.acknowledge import duplicate_ack, next_sequence
    from emptcp.mptcp.inject import Injector, deliver, send
    from emptcp.mptcp.routes import device_indexes
    from emptcp.mptcp.samples import passing_frames, sample_frames, seen_by
    from emptcp.mptcp.selected import selected_subflows, subflows_on_devices
    from emptcp.mptcp.sockets import Snapshot, Subflow, SubflowReader, subflows
    from emptcp.mptcp.tell import tell
    from emptcp.packet import mptcp as options
    from emptcp.plugins.catalog import BoundStage
    from emptcp.policy.model import FromMap, Policy
    from emptcp.pybpf import features
    from emptcp.pybpf.map import Map

_HOME = {
    "BoundStage": "emptcp.plugins.catalog",
    "Connection": "emptcp.control.connection",
    "ConnectionSubflow": "emptcp.control.subflow",
    "Controller": "emptcp.control.controller",
    "Device": "emptcp.hooks.devices",
    "Entries": "emptcp.chain.entries",
    "FromMap": "emptcp.policy.model",
    "Injector": "emptcp.mptcp.inject",
    "Map": "emptcp.pybpf.map",
    "Path": "emptcp.control.path",
    "Policy": "emptcp.policy.model",
    "Snapshot": "emptcp.mptcp.sockets",
    "Subflow": "emptcp.mptcp.sockets",
    "SubflowReader": "emptcp.mptcp.sockets",
    "Subflows": "emptcp.control.connection",
    "connection_of": "emptcp.chain.flows",
    "deliver": "emptcp.mptcp.inject",
    "device_indexes": "emptcp.mptcp.routes",
    "duplicate_ack": "emptcp.mptcp.acknowledge",
    "next_sequence": "emptcp.mptcp.acknowledge",
    "open_map": "emptcp.chain.entries",
    "open_plugin_map": "emptcp.chain.lending",
    "open_set": "emptcp.chain.entries",
    "passing_frames": "emptcp.mptcp.samples",
    "sample_frames": "emptcp.mptcp.samples",
    "seen_by": "emptcp.mptcp.samples",
    "selected_subflows": "emptcp.mptcp.selected",
    "send": "emptcp.mptcp.inject",
    "subflows": "emptcp.mptcp.sockets",
    "subflows_on_devices": "emptcp.mptcp.selected",
    "tell": "emptcp.mptcp.tell",
}
_MODULES = {
    "devices": "emptcp.hooks.devices",
    "features": "emptcp.pybpf.features",
    "keys": "emptcp.mptcp.keys",
    "namespaces": "emptcp.hooks.namespaces",
    "options": "emptcp.packet.mptcp",
}

__all__ = [
    "CHAIN_ABI",
    "HOOK_API",
    "Action",
    "BoundStage",
    "Change",
    "Connection",
    "ConnectionEntry",
    "ConnectionSubflow",
    "Controller",
    "Device",
    "EmptcpError",
    "Endpoint",
    "Ends",
    "Entries",
    "FlowEntry",
    "FlowStates",
    "FromMap",
    "Injector",
    "Map",
    "Path",
    "Policy",
    "Snapshot",
    "StageEvent",
    "Subflow",
    "SubflowReader",
    "Subflows",
    "connection_of",
    "deliver",
    "device_indexes",
    "devices",
    "did_you_mean",
    "duplicate_ack",
    "features",
    "hookimpl",
    "hookspec",
    "keys",
    "namespaces",
    "next_sequence",
    "open_map",
    "open_plugin_map",
    "open_set",
    "options",
    "passing_frames",
    "sample_frames",
    "seen_by",
    "selected_subflows",
    "send",
    "subflows",
    "subflows_on_devices",
    "tell",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"emptcp.api offers no '{name}'; {did_you_mean(name, __all__)}".rstrip("; "))
