# SPDX-License-Identifier: Apache-2.0
"""Tell which device a subflow uses."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace
    from emptcp.mptcp.sockets import Subflow
    from emptcp.plugins.occasions import Address


Routed = MutableMapping[object, int]
"""A subflow's ends and token -> the ifindex that the routes named."""


def device_indexes(
    namespace: Namespace | None, subflows: Iterable[Subflow], routed: Routed | None = None
) -> list[int]:
    """Return the ifindex of each subflow's device, 0 where there is no route any more.

    It is the device by which its packets came in, as far as the socket noted one (a fresh subflow of a
    client has not yet, nor any before Linux 5.17), else the one to which it is bound, else the one that the
    routes name. With ``routed`` these are asked once of each subflow.
    """
    wanted, routed = list(subflows), routed if routed is not None else {}
    known = [one.device or one.bound_device or routed.get((one.endpoints, one.token), 0) for one in wanted]
    if all(known):
        return known
    if namespace is None:
        found = _ask(wanted, known)
    else:
        from emptcp.hooks import namespaces

        found = namespaces.call(namespace, lambda: _ask(wanted, known))
    told = zip(wanted, known, found, strict=True)
    routed.update(((one.endpoints, one.token), index) for one, before, index in told if index and not before)
    return found


def _ask(subflows: list[Subflow], known: list[int]) -> list[int]:
    """Ask the routes of the calling thread's namespace, once for each pair of addresses: many share one."""
    from pyroute2 import IPRoute

    pairs = [(subflow.local, subflow.remote) for subflow in subflows]
    with IPRoute() as routes:
        unknown = {pair for pair, index in zip(pairs, known, strict=True) if not index}
        found = {pair: _route(routes, *pair) for pair in unknown}
    return [index or found[pair] for pair, index in zip(pairs, known, strict=True)]


def _route(routes: Any, local: Address, remote: Address) -> int:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        # The source address too: hosts with several uplinks choose the table by it.
        (answer,) = routes.route("get", dst=str(remote), src=str(local))
    except NetlinkError:
        return 0
    return int(answer.get_attr("RTA_OIF") or 0)
