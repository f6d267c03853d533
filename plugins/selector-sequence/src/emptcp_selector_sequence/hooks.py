# SPDX-License-Identifier: Apache-2.0
"""The Python side of sequence: which numbers there are."""

from __future__ import annotations

from emptcp.api import BoundStage, EmptcpError, Policy, hookimpl

NAME = "sequence"
SSN = 1
_LARGEST = 2**32 - 1
_NOT_GIVEN = 2**64 - 1


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse a subflow sequence number that does not fit into its 32 bits."""
    if stage.type.name != NAME or stage.values["space"] != SSN:
        return
    for bound in ("first", "last"):
        number = stage.values[bound]
        if isinstance(number, int) and _LARGEST < number < _NOT_GIVEN:
            message = (
                f"policy '{policy.name}': {bound}={number} is no subflow sequence number, which has 32 bits"
            )
            fix = f"Write a number up to {_LARGEST}, or space=dsn."
            raise EmptcpError(message, fix=fix, where=str(stage.spec.where))
