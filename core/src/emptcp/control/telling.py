# SPDX-License-Identifier: Apache-2.0
"""What a controller's settings do to live sockets: the actors' plugins are told of which subflows."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from emptcp.chain import controllers, effects, off, running, sockets
from emptcp.plugins.occasions import Ends
from emptcp.plugins.setters import SETTERS
from emptcp.policy.keys import KeyFormat

if TYPE_CHECKING:
    from emptcp.chain.effects import Effects
    from emptcp.chain.pins import Pins
    from emptcp.control.charge import Name
    from emptcp.control.settings import Changed
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.manager import Manager

_ENDPOINT_BYTES = KeyFormat(["endpoint"]).size


def tell(pins: Pins, catalog: Catalog, manager: Manager, name: Name, changes: Iterable[Changed]) -> None:
    """Tell of settings that are in force by now. Policies that are off are told nothing."""
    by_target: dict[str, list[Changed]] = {}
    for one in changes:
        by_target.setdefault(one.target, []).append(one)
    state = off.read()
    with running.everything(pins) as found:
        for target, some in by_target.items():
            policy = name.table, controllers.policy_name(name.controller, target)
            if state.everything or state.skips(*policy):
                continue
            names = frozenset({policy})
            for stages in effects.of_running(pins, catalog, manager, found.values(), names)[0]:
                with closing(stages):
                    _tell(stages, controllers.store_name(name.controller, target), target, some)
    sockets.run_everywhere(pins)


def _tell(stages: Effects, store: str, target: str, changes: list[Changed]) -> None:
    if target in SETTERS:
        stages.entries(store, {ends(one.key): _value(one) for one in changes})
        return
    allows = controllers.allows(target)
    released = {int.from_bytes(one.key, "little") for one in changes if allows == (one.value is not None)}
    if released:
        stages.released(released)


def _value(one: Changed) -> int | bool | None:
    return bool(one.value) if SETTERS[one.target].type == "bool" and one.value is not None else one.value


def ends(key: bytes) -> Ends:
    """Return the two ends of a key ``subflow``, in its order."""
    from ipaddress import IPv6Address

    halves = key[:_ENDPOINT_BYTES], key[_ENDPOINT_BYTES:]
    first, second = (
        (address.ipv4_mapped or address, int.from_bytes(half[16:], "big"))
        for half in halves
        for address in [IPv6Address(half[:16])]
    )
    return first, second
