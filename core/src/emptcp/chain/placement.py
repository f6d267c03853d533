# SPDX-License-Identifier: Apache-2.0
"""Where a table's policies belong: which namespaces, devices and hooks they name, bound for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from emptcp.chain.bind import bind
from emptcp.chain.pins import Location
from emptcp.chain.plan import BoundPolicy
from emptcp.chain.program import L2
from emptcp.errors import EmptcpError, quoted
from emptcp.hooks import devices, namespaces
from emptcp.policy import model

if TYPE_CHECKING:
    from emptcp.hooks.devices import Device
    from emptcp.hooks.namespaces import Namespace
    from emptcp.plugins.catalog import BoundStage, Catalog

HOOKS = ("ingress", "egress")
Validate = Callable[["BoundStage", model.Policy], None]


@dataclass
class Site:
    """One device of one namespace, and what a table wants there on each hook.

    ``device_gone``: there is no such device any more; ``gone``: nor its namespace.
    """

    namespace: Namespace
    device: Device
    gone: bool = False
    device_gone: bool = False
    policies: dict[str, list[BoundPolicy]] = field(default_factory=lambda: {hook: [] for hook in HOOKS})
    backends: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, int]:
        """The namespace's cookie and the device's ifindex."""
        return self.namespace.cookie, self.device.ifindex

    def location(self, hook: str) -> Location:
        """Return where a hook's program of this device is pinned."""
        return Location(self.namespace.cookie, hook, self.device.ifindex)

    def wants(self, policy: model.Policy) -> None:
        """Note the ingress back-end that a policy asks for.

        Raises :class:`EmptcpError` when another policy asked for a different one.
        """
        if policy.backend == "auto":
            return
        asked, by = self.backends.get("backend", policy.backend), self.backends.get("policy", policy.name)
        if asked != policy.backend:
            raise EmptcpError(
                f"policies {quoted(by)} and {quoted(policy.name)} want back-ends '{asked}' and "
                f"'{policy.backend}' on device {self.device.name}, which can have one",
                fix="Give both the same backend.",
                where=str(policy.where),
            )
        self.backends.update(backend=asked, policy=by)


def place(
    table: model.Table, netns: str, catalog: Catalog, absent: list[EmptcpError] | None = None
) -> dict[tuple[int, int], Site]:
    """Find the devices of every policy and bind it for each of them.

    ``netns`` is the namespace of policies that name none (empty: the command's own). Raises
    :class:`EmptcpError` for a namespace or device that is not there, unless it is a glob or ``optional``;
    with a list ``absent`` the error goes there, and the rest is placed.
    """
    sites: dict[tuple[int, int], Site] = {}
    look = _Look()
    for policy in table.policies:
        for namespace, device in _devices(policy, netns, look, absent):
            site = sites.setdefault((namespace.cookie, device.ifindex), Site(namespace, device))
            site.wants(policy)
            for hook in policy.hooks:
                bound = bind(table, policy, hook, catalog, indexes(namespace))
                site.policies[hook].append(bound)
    return sites


class _Look:
    """Namespaces and devices, each looked for once: all policies are placed by what was there then."""

    def __init__(self) -> None:
        self.namespace = cache(namespaces.resolve)
        self.devices = cache(devices.match)


def _devices(
    policy: model.Policy, netns: str, look: _Look, absent: list[EmptcpError] | None
) -> Iterator[tuple[Namespace, Device]]:
    def missing(error: EmptcpError) -> None:
        located = EmptcpError(error.sentence, fix=error.fix, where=str(policy.where))
        if absent is None:
            raise located from None
        absent.append(located)

    try:
        namespace = look.namespace(policy.netns if policy.netns is not None else netns)
    except EmptcpError as error:
        missing(error)
        return
    found: dict[int, Device] = {}
    for pattern in policy.devices:
        try:
            found |= {device.ifindex: device for device in look.devices(namespace, (pattern,))}
        except EmptcpError as error:
            if not policy.optional:
                missing(error)
    for device in found.values():
        _check_link(policy, device)
        yield namespace, device


def _check_link(policy: model.Policy, device: Device) -> None:
    if device.link not in L2:
        raise EmptcpError(
            f"packets of device {device.name} ({quoted(policy.name)}) begin neither with Ethernet nor IP",
            fix="Name the device that carries the IP packets.",
            where=str(policy.where),
        )


def indexes(namespace: Namespace) -> Callable[[str], int]:
    """Return what tells the ifindex of a device that a parameter names."""

    def index(name: str) -> int:
        (device,) = devices.match(namespace, [name])
        return device.ifindex

    return index
