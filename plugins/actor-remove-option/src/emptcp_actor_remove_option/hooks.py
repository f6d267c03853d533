# SPDX-License-Identifier: Apache-2.0
"""The Python side of remove_option: one option, and none that connections depend on unless that is meant."""

from __future__ import annotations

from emptcp.api import BoundStage, EmptcpError, Policy, hookimpl

NAME = "remove_option"
VITAL = frozenset({"mp_capable", "mp_join", "dss"})
VITAL_KINDS = {2: "MSS", 3: "window scale", 4: "SACK permitted", 5: "SACK", 8: "timestamps", 30: "MPTCP"}
NEVER = {0: "the end of the options", 1: "NOP", 19: "TCP-MD5", 29: "TCP-AO"}


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse what can't be removed, or not without harm."""
    if (stage.type.plugin, stage.type.name) != (NAME, NAME):
        return
    names, kind = list(stage.values.get("option") or ()), stage.values.get("kind", 0)
    if len(names) + bool(kind) != 1:
        raise _refusal(stage, policy, "removes exactly one option", "Write one of option= and kind=.")
    if kind and kind in NEVER:
        raise _refusal(stage, policy, f"can't remove kind {kind}, {NEVER[kind]}", "Write another kind.")
    if stage.values.get("unsafe"):
        return
    vital = [*(VITAL & set(names)), *([VITAL_KINDS[kind]] if kind in VITAL_KINDS else [])]
    if vital:
        raise _refusal(
            stage, policy, f"would break connections without {vital[0]}", "Write unsafe=true if you mean it."
        )


def _refusal(stage: BoundStage, policy: Policy, what: str, fix: str) -> EmptcpError:
    return EmptcpError(
        f"remove_option of policy '{policy.name}' {what}", fix=fix, where=str(stage.spec.where)
    )
