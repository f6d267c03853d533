# SPDX-License-Identifier: Apache-2.0
"""Which subflows a running policy can have touched, as far as its ``when`` tells by the two ends alone.

Nothing is kept per packet for this: the policy's own selectors are run over packets of the subflow in
question. Only those are asked that read nothing but the ends and keep nothing; others may have matched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

from emptcp import pybpf
from emptcp.chain.bind import bind
from emptcp.chain.description import PolicyRecord
from emptcp.chain.dryrun import Runner
from emptcp.chain.lending import own_maps
from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.occasions import Endpoint
from emptcp.policy import file, model, values

Ends = tuple[Endpoint, Endpoint]
"""Who sends, and to whom."""


class Reach:
    """Asks policies which subflows they can select. Close it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._runners: dict[tuple[str, str], Runner | None] = {}
        self._open = ExitStack()

    def includes(self, policy: PolicyRecord, hook: str, ends: Ends) -> bool:
        """Return whether a policy can have selected packets between two ends; True where nobody knows."""
        known = (policy.source, hook)
        if known not in self._runners:
            self._runners[known] = self._load(policy, hook)
        runner = self._runners[known]
        return runner is None or any(runner.run(_packet(*way)).matched for way in (ends, ends[::-1]))

    def close(self) -> None:
        """Unload the programs that were asked."""
        self._open.close()

    def _load(self, record: PolicyRecord, hook: str) -> Runner | None:
        """Return what runs the selectors that can be asked; ``None`` where the policy may select anything."""
        try:
            table = file.loads(record.source)
            policy = table.policies[0]
            when = asked(policy.when, self._decides)
            if when is None:
                return None
            alone = replace(policy, when=when, do=model.actors(table, policy.do)[:1])
            bound = bind(table, alone, hook, self._catalog, values.any_device)
            return self._open.enter_context(Runner([bound], hook, "tc"))
        except (EmptcpError, pybpf.BpfError):  # a plugin is gone, say
            return None

    def _decides(self, leaf: model.Select | model.InSet) -> bool:
        """Return whether a selector's answer hangs on the packet's two ends alone."""
        if isinstance(leaf, model.InSet):
            return False  # what is in a set may have changed since
        found = self._catalog.bind(leaf.stage, devices=values.any_device)
        arguments = (*leaf.stage.positional, *(one.value for one in leaf.stage.keywords))
        return (
            set(found.type.declaration.reads) == {"key"}
            and not found.type.fragment.state_size
            and not own_maps(str(found.type.object))
            and not any(isinstance(one, model.FromMap) for one in arguments)
        )


def asked(
    when: model.Expression | None,
    decides: Callable[[model.Select | model.InSet], bool],
    negated: bool = False,
) -> model.Expression | None:
    """Return an expression of the leaves that decide, true wherever ``when`` can be; ``None``: anywhere."""
    if isinstance(when, model.Not):
        return asked(when.child, decides, not negated)
    if isinstance(when, model.And | model.Or):
        children = [asked(child, decides, negated) for child in when.children]
        known = [child for child in children if child is not None]
        if isinstance(when, model.And) != negated:
            return model.conjunction(*known) if known else None
        return model.disjunction(*known) if len(known) == len(children) else None
    if when is None or not decides(when):
        return None
    return model.Not(when) if negated else when


def _packet(source: Endpoint, target: Endpoint) -> bytes:
    family: Literal[4, 6] = 4 if source[0].version == 4 else 6
    ends: dict[str, Any] = {"src": source[0], "sport": source[1], "dst": target[0], "dport": target[1]}
    return build(family=family, options=[Dss(data_ack=1)], **ends)
