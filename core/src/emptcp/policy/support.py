# SPDX-License-Identifier: Apache-2.0
"""What can be declared in a policy file and is not carried out yet. The one place where it is refused."""

from __future__ import annotations

from emptcp.errors import EmptcpError, quoted
from emptcp.policy import model
from emptcp.policy.place import Place


def refuse_unsupported(table: model.Table) -> None:
    """Raise :class:`EmptcpError` when ``table`` uses what this release only reads.

    A set, a map or a path that nothing uses is harmless, and stays.
    """
    for controller in table.controllers:
        raise _not_yet(f"controller {quoted(controller.name)}", controller.where)
    for chain in table.chains:
        _refuse_in_chain(chain.do)
    for policy in table.policies:
        if "socket" in policy.hooks:
            raise _not_yet(f"hook 'socket' of policy {quoted(policy.name)}", policy.where)
        for leaf in model.leaves(policy.when):
            if isinstance(leaf, model.InSet):
                raise _not_yet(f"'{leaf.key} in @{leaf.set}'", leaf.where)
            _refuse_in_stage(leaf.stage)
        _refuse_in_chain(policy.do)


def refuse_unsupported_type(kind: str) -> None:
    """Raise for a parameter of a type (``set``, ``map``, ``chain``) that can't be handed to BPF yet."""
    raise _not_yet(f"a parameter of type {kind}", Place())


def refused_value(argument: model.FromMap) -> EmptcpError:
    """Return the error for a value that is to be read from a map."""
    return _not_yet(f"a value read from a map, '{argument.key} @{argument.map}'", argument.where)


def _refuse_in_chain(do: tuple[model.Step, ...]) -> None:
    for step in do:
        if isinstance(step, model.StageSpec):
            _refuse_in_stage(step)


def _refuse_in_stage(stage: model.StageSpec) -> None:
    for argument in (*stage.positional, *(keyword.value for keyword in stage.keywords)):
        if isinstance(argument, model.FromMap):
            raise refused_value(argument)


def _not_yet(what: str, where: Place) -> EmptcpError:
    fix = "Remove it for now; this release only reads it."
    return EmptcpError(f"{what} is not carried out by this release", fix=fix, where=str(where))
