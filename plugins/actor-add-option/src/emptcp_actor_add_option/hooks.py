# SPDX-License-Identifier: Apache-2.0
"""The Python side of add_option: a value must fit, and no SYN may ask for another protocol."""

from __future__ import annotations

from emptcp.api import BoundStage, EmptcpError, Policy, hookimpl

NAME = "add_option"
ACTED_UPON = {b"\xf9\x89": "TCP Fast Open's (RFC 7413)", b"\xe2\xd4\xc3\xd9": "SMC-R's (RFC 7609)"}
"""What Linux takes for a request when a SYN has it behind kind 254 (tcp_parse_options() in
net/ipv4/tcp_input.c). Identifiers are one registry for both kinds (RFC 6994), so both are refused."""


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse a value that its size can't hold, and in a SYN an option of another protocol."""
    if (stage.type.plugin, stage.type.name) != (NAME, NAME):
        return
    exid, value, size = (stage.values.get(name, 0) for name in ("exid", "value", "size"))
    if value >> 8 * size:
        raise EmptcpError(
            f"policy '{policy.name}': the value {value:#x} of an option has more than {size} bytes",
            fix="Write size=4, for instance.",
            where=str(stage.spec.where),
        )
    data = exid.to_bytes(2, "big") + value.to_bytes(size, "big")
    owner = next((owner for begin, owner in ACTED_UPON.items() if data.startswith(begin)), None)
    if owner and stage.values.get("syn"):
        raise EmptcpError(
            f"policy '{policy.name}': an option with exid={exid:#x} in a SYN is {owner}; Linux acts upon it",
            fix="Write another exid, or leave syn=true out.",
            where=str(stage.spec.where),
        )
