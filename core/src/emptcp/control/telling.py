# SPDX-License-Identifier: Apache-2.0
"""What a controller's settings do to live sockets: the actors' plugins are told of which subflows."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from emptcp.chain import controllers, effects, off, running, sockets
from emptcp.control.subflow import SETTERS
from emptcp.plugins.occasions import Ends
from emptcp.policy.keys import KeyFormat

if TYPE_CHECKING:
    from emptcp.chain.pins import Pins
    from emptcp.control.charge import Name
    from emptcp.control.settings import Changed
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.manager import Manager

_ENDPOINT_BYTES = KeyFormat(["endpoint"]).size


def tell(pins: Pins, catalog: Catalog, manager: Manager, name: Name, changes: Iterable[Changed]) -> None:
    """Tell of settings that are in force by now. Policies that are off are told nothing."""
    by_setter: dict[str, dict[Ends, int | bool | None]] = {}
    for one in changes:
        value = bool(one.value) if one.setter == "backup" and one.value is not None else one.value
        by_setter.setdefault(one.setter, {})[ends(one.key)] = value
    state = off.read()
    with running.everything(pins) as found:
        for setter in (one for one in SETTERS if one in by_setter):
            policy = name.table, controllers.policy_name(name.controller, setter)
            if state.everything or state.skips(*policy):
                continue
            names = frozenset({policy})
            for stages in effects.of_running(pins, catalog, manager, found.values(), names)[0]:
                with closing(stages):
                    stages.entries(controllers.map_name(name.controller, setter), by_setter[setter])
    sockets.run_everywhere(pins)


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
