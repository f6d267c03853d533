# SPDX-License-Identifier: Apache-2.0
"""Bind a table's policies to plugins: every stage gets its fragment and its packed parameters."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from emptcp.chain import lookups
from emptcp.chain.plan import BoundPolicy, FragmentRef, Stage
from emptcp.errors import EmptcpError, quoted
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.plugins.layout import STAGE_ID, FragmentLayout
from emptcp.policy import model, text, values


def bind(
    table: model.Table,
    policy: model.Policy,
    hook: str,
    catalog: Catalog,
    devices: values.Devices = values.no_devices,
) -> BoundPolicy:
    """Bind one policy of ``table`` for one of its hooks.

    ``devices`` tells the ifindex of a device named by a parameter. Raises :class:`EmptcpError` at the place
    of a stage that does not exist, does not run on this hook, or is given what it does not take.
    """
    naming = Counter[str]()
    found = [
        _member(table, one, catalog, naming)
        if isinstance(one, model.InSet)
        else _stage(table, policy, hook, catalog, catalog.bind(one, devices=devices), naming)
        for one in _in_order(table, policy)
    ]
    return BoundPolicy(
        table=table.name,
        name=policy.name,
        when=policy.when,
        selectors=tuple(stage for stage in found if stage.kind == "selector"),
        actors=tuple(stage for stage in found if stage.kind == "actor"),
        source=source(table, policy),
        engine=table.engine,
    )


def source(table: model.Table, policy: model.Policy) -> str:
    """Return a policy file with just this policy, its named chains written out, sets and maps empty."""
    alone = replace(policy, do=model.actors(table, policy.do))
    return text.table_text(lookups.without_entries(table, alone))


def stage_ids(table: model.Table, policy: model.Policy) -> list[tuple[str, model.StageSpec | model.InSet]]:
    """Return the id and the spec of each stage, selectors first; a set that is asked is one of them."""
    naming = Counter[str]()
    return [(_id(one, naming), one) for one in _in_order(table, policy)]


def _in_order(table: model.Table, policy: model.Policy) -> Iterator[model.StageSpec | model.InSet]:
    for leaf in model.leaves(policy.when):
        yield leaf if isinstance(leaf, model.InSet) else leaf.stage
    yield from model.actors(table, policy.do)


def _id(spec: model.StageSpec | model.InSet, naming: Counter[str]) -> str:
    """Return the label, or the name, or ``@set``; with ``#2`` for its second use and so on."""
    name = f"@{spec.set}" if isinstance(spec, model.InSet) else spec.label or spec.name.rpartition(":")[2]
    naming[name] += 1
    return name if naming[name] == 1 else f"{name}#{naming[name]}"


def _member(table: model.Table, leaf: model.InSet, catalog: Catalog, naming: Counter[str]) -> Stage:
    """Return the stage that asks a set: the key's fragment, behind which core looks the key up."""
    store, key = lookups.of_set(table, leaf, catalog)
    return Stage(
        id=_id(leaf, naming),
        kind="selector",
        name=f"@{leaf.set}",
        text=f"{leaf.key} in @{leaf.set}",
        fragment=store.key,
        parameters=b"",
        reads=frozenset(key.declaration.reads),
        member=store,
    )


def _stage(
    table: model.Table,
    policy: model.Policy,
    hook: str,
    catalog: Catalog,
    bound: BoundStage,
    naming: Counter[str],
) -> Stage:
    _check_hook(policy, hook, bound)
    declaration = bound.type.declaration
    if declaration.unsafe and not policy.unsafe:
        raise EmptcpError(
            f"actor '{declaration.name}' can break connections, which policy {quoted(policy.name)} "
            "does not allow",
            fix="Write unsafe = true in the policy if you mean it.",
            where=str(bound.spec.where),
        )
    name = _id(bound.spec, naming)
    looked_up = list(lookups.of_values(table, bound, catalog))
    return Stage(
        id=name,
        kind=declaration.kind,
        name=declaration.name,
        text=bound.text,
        fragment=_fragment(bound, bound.type.fragment),
        parameters=_numbered(bound, f"{policy.table}/{policy.name}/{name}"),
        reads=frozenset(declaration.reads).union(*(key.declaration.reads for _, key in looked_up)),
        plain_tcp=bound.wants_plain_tcp,
        companions=tuple(_companions(bound)),
        values=tuple(value for value, _ in looked_up),
    )


def _numbered(bound: BoundStage, name: str) -> bytes:
    """Return the parameters with the stage's number in the member that asks for it."""
    member = bound.type.fragment.fields.get(STAGE_ID)
    if member is None:
        return bound.packed
    number = hashlib.blake2b(name.encode(), digest_size=member.bytes).digest()
    return bound.packed[: member.offset] + number + bound.packed[member.offset + member.bytes :]


def _check_hook(policy: model.Policy, hook: str, bound: BoundStage) -> None:
    declaration = bound.type.declaration
    if hook not in declaration.hooks:
        raise EmptcpError(
            f"{declaration.kind} '{declaration.name}' does not run at {hook}, where policy "
            f"{quoted(policy.name)} uses it",
            fix=f"It runs at {' and '.join(declaration.hooks)}.",
            where=str(bound.spec.where),
        )


def _companions(bound: BoundStage) -> Iterator[tuple[str, FragmentRef]]:
    for hook, layout in bound.companions:
        yield hook, _fragment(bound, layout)


def _fragment(bound: BoundStage, layout: FragmentLayout) -> FragmentRef:
    found = bound.type
    flow = "flow" in found.declaration.reads
    return FragmentRef(found.plugin, str(found.object), layout.name, layout.state_size, flow, bound.imports)
