# SPDX-License-Identifier: Apache-2.0
"""The subflow of this host that an event is about."""

from __future__ import annotations

from emptcp.api import Device, Endpoint, Subflow, device_indexes, devices, namespaces


def is_between(subflow: Subflow, ends: tuple[Endpoint, Endpoint] | None) -> bool:
    """Return whether an open subflow has these two ends."""
    own = {(subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port)}
    return ends is not None and subflow.open and own == set(ends)


def device_of(namespace: namespaces.Namespace, subflow: Subflow) -> Device | None:
    """Return the device that a subflow uses, ``None`` where there is none any more."""
    (index,) = device_indexes(namespace, [subflow])
    return next((one for one in devices.list_devices(namespace) if one.ifindex == index), None)
