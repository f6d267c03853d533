# SPDX-License-Identifier: Apache-2.0
"""What an actor may do to a packet: what its manifest says, with the values that a policy gives it.

Whatever the manifest says, a DSS, an MP_CAPABLE and an MP_JOIN only go, and a subflow's ACK only stops being
one, where the policy says ``unsafe=true``.
"""

from __future__ import annotations

from emptcp.packet.subtype import Subtype
from emptcp.packet.tcp import Kind
from emptcp.plugins import changes
from emptcp.plugins.catalog import BoundStage
from emptcp_sdk.fuzz.judge import Allowed, Options

_NUMBERS = {name: Subtype[name.upper()] for name in changes.SUBTYPES}
_VITAL = Options(frozenset({Subtype.MP_CAPABLE, Subtype.MP_JOIN, Subtype.DSS}), frozenset({Kind.MPTCP}))


def allowed(stage: BoundStage) -> Allowed:
    """Return what may be otherwise behind an actor of a policy."""
    told = [changes.parse(word) for word in stage.type.declaration.modifies]
    unsafe = bool(stage.type.declaration.unsafe or stage.values.get("unsafe"))
    of_verb = {
        verb: Options.union(_options(stage, one) for one in told if verb in one.verbs)
        for verb in changes.VERBS
    }
    removed = of_verb["remove"]
    return Allowed(
        insert=of_verb["insert"],
        rewrite=of_verb["rewrite"],
        remove=removed if unsafe else removed.without(_VITAL),
        fields=frozenset(one.what for one in told if not one.verbs),
        established=not unsafe,
    )


def _options(stage: BoundStage, change: changes.Change) -> Options:
    if not change.parameter:
        return Options(frozenset({_NUMBERS[change.what]}))
    value = stage.values.get(change.what)
    if isinstance(value, int):
        return Options(kinds=frozenset({value}) - {0})
    return Options(frozenset(_NUMBERS[name] for name in value or ()))
