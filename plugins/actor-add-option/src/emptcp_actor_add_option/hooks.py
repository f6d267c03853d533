# SPDX-License-Identifier: Apache-2.0
"""The Python side of add_option: a value must fit."""

from __future__ import annotations

from emptcp.api import BoundStage, EmptcpError, Policy, hookimpl

NAME = "add_option"


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse a value that its size can't hold."""
    if (stage.type.plugin, stage.type.name) != (NAME, NAME):
        return
    value, size = stage.values.get("value", 0), stage.values.get("size", 0)
    if value >> 8 * size:
        raise EmptcpError(
            f"policy '{policy.name}': the value {value:#x} of an option has more than {size} bytes",
            fix="Write size=4, for instance.",
            where=str(stage.spec.where),
        )
