# SPDX-License-Identifier: Apache-2.0
"""The Python side of option: which parameters go together."""

from __future__ import annotations

from emptcp.api import BoundStage, EmptcpError, Policy, hookimpl

NAME = "option"
EXPERIMENTAL = (253, 254)


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse an identifier where there is none, and a value that its size can't hold."""
    if (stage.type.plugin, stage.type.name) != (NAME, NAME):
        return
    values = stage.values
    kind, exid, value, size = (values.get(name, 0) for name in ("kind", "exid", "value", "size"))
    where = str(stage.spec.where)
    if exid and kind not in EXPERIMENTAL:
        raise EmptcpError(
            f"policy '{policy.name}': options of kind {kind} have no ExID",
            fix="Leave exid out, or write kind=253.",
            where=where,
        )
    if value >> 8 * size:
        raise EmptcpError(
            f"policy '{policy.name}': the value {value:#x} of an option has more than {size} bytes",
            fix="Write size=4, for instance.",
            where=where,
        )
