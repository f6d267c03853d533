# SPDX-License-Identifier: Apache-2.0
"""Which of this host's subflows a policy selects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from emptcp.mptcp.routes import device_indexes
from emptcp.mptcp.samples import sample_frames

if TYPE_CHECKING:
    from emptcp.hooks.devices import Device
    from emptcp.mptcp.acknowledge import End
    from emptcp.mptcp.sockets import Snapshot, Subflow, SubflowReader
    from emptcp.plugins.occasions import Change


def selected_subflows(
    change: Change, to: End, reader: SubflowReader | Snapshot
) -> Iterator[tuple[Subflow, Device]]:
    """Yield the open subflows of the change's namespace that its policy selects, with their devices.

    ``to="us"``: by packets that come in, ``"peer"``: by packets that go out; see :func:`sample_frames`. The
    policy is asked once of each subflow as long as ``change.remembered`` is the same.
    """
    found: dict[Any, bool] = {}
    for subflow, device in subflows_on_devices(change, reader):
        same = to, subflow.token, subflow.endpoints
        answer = change.remembered.get(same)
        if answer is None:
            answer = any(change.matches(frame) for frame in sample_frames(subflow, device, to))
        found[same] = answer
        if answer:
            yield subflow, device
    change.remembered.clear()
    change.remembered.update(found)


def subflows_on_devices(change: Change, reader: SubflowReader | Snapshot) -> Iterator[tuple[Subflow, Device]]:
    """Yield the open subflows of the change's namespace that use its devices, with these."""
    from emptcp.hooks import devices, namespaces
    from emptcp.mptcp.sockets import Snapshot

    here = [subflow for subflow in reader.read(change.namespace) if subflow.open]
    if not here:
        return
    known = devices.list_devices(change.namespace or namespaces.resolve())
    by_index = {device.ifindex: device for device in known if device.name in change.devices}
    routed = reader.routed(change.namespace) if isinstance(reader, Snapshot) else None
    for subflow, index in zip(here, device_indexes(change.namespace, here, routed), strict=True):
        device = by_index.get(index)
        if device:
            yield subflow, device
