# SPDX-License-Identifier: Apache-2.0
"""Announce an address of this host on its connections, signed with their keys (RFC 8684, section 3.4.1)."""

from __future__ import annotations

from emptcp.api import Change, Injector, Subflow, SubflowReader, keys, options, selected_subflows, tell


def announce(change: Change) -> None:
    """Tell the peer of each connection of which the policy selects a subflow, once, and on that subflow.

    A connection whose keys are not known is left out: the peer takes no announcement without a right HMAC.
    """
    told: set[int] = set()
    with SubflowReader() as reader, Injector(change.namespace) as injector:
        for subflow, device in selected_subflows(change, "peer", reader):
            if subflow.token in told or not all(subflow.keys):
                continue
            told.add(subflow.token)
            tell(
                subflow,
                device,
                [_option(change, subflow)],
                "peer",
                namespace=change.namespace,
                reader=reader,
                injector=injector,
            )


def _option(change: Change, subflow: Subflow) -> options.AddAddress:
    address, address_id, port = (change.value(name) for name in ("announce", "id", "port"))
    ours, theirs = subflow.keys
    hmac = keys.address_hmac(ours, theirs, address_id, address, port)
    return options.AddAddress(address_id, address, port=port, hmac=hmac)
