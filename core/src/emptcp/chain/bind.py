# SPDX-License-Identifier: Apache-2.0
"""Bind a table's policies to plugins: every stage gets its fragment and its packed parameters."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from emptcp.chain import chains, lookups
from emptcp.chain.objects import core_object
from emptcp.chain.plan import BoundChain, BoundPolicy, FragmentRef, Stage, reads_flow
from emptcp.errors import EmptcpError, quoted
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.plugins.layout import STAGE_ID, FragmentLayout
from emptcp.policy import model, text, values

_Written = model.StageSpec | model.InSet
"""A stage as it is written: a selector or an actor, or a set that is asked."""


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

    def stages(home: str, steps: Iterable[_Written]) -> tuple[Stage, ...]:
        naming = Counter[str]()
        return tuple(
            _member(table, one, catalog, naming)
            if isinstance(one, model.InSet)
            else _stage(table, policy, hook, catalog, home, catalog.bind(one, devices=devices), naming)
            for one in steps
        )

    found = stages(f"{table.name}/{policy.name}", _own(policy))
    reachable = chains.reachable(table, policy.do, chains.strictly(table, catalog))
    return BoundPolicy(
        table=table.name,
        name=policy.name,
        when=policy.when,
        selectors=tuple(stage for stage in found if stage.kind == "selector"),
        actors=tuple(stage for stage in found if stage.kind == "actor"),
        source=source(table, policy, reachable),
        engine=table.engine,
        goto=_goto(policy.do),
        backend=policy.backend,
        chains=tuple(
            BoundChain(
                chain.name, stages(chains.home(table.name, chain.name), _specs(chain.do)), _goto(chain.do)
            )
            for chain in reachable
        ),
    )


def source(table: model.Table, policy: model.Policy, reachable: Sequence[model.Chain] = ()) -> str:
    """Return a policy file with just this policy, the table's chains if it comes to any, sets and maps empty.

    All chains of the table: their order tells their numbers.
    """
    alone = replace(table, policies=(policy,), chains=table.chains if reachable else ())
    return text.table_text(lookups.without_entries(alone))


def stage_ids(
    table: model.Table, policy: model.Policy, catalog: Catalog
) -> list[tuple[str, model.StageSpec | model.InSet]]:
    """Return the id and the spec of each stage: selectors, the policy's own chain, then the named ones.

    A set that is asked is ``@set``, stages of a named chain are ``@chain/stage``.
    """
    reachable = chains.reachable(table, policy.do, chains.as_far_as_known(catalog))
    homes = [("", _own(policy)), *((f"@{chain.name}/", _specs(chain.do)) for chain in reachable)]
    return [pair for prefix, steps in homes for pair in _ids(prefix, steps)]


def stage_ids_of_chain(chain: model.Chain) -> list[tuple[str, model.StageSpec | model.InSet]]:
    """Return the id and the spec of each stage of a named chain."""
    return list(_ids("", _specs(chain.do)))


def full_name(table: str, policy: str, stage: str) -> str:
    """Return the name of a stage of a policy's :func:`stage_ids`, as counters and parameters have it."""
    return f"{table}/{stage}" if stage.startswith("@") and "/" in stage else f"{table}/{policy}/{stage}"


def stage_number(name: str) -> int:
    """Return the number by which the fragment of a stage with this full name knows it (``stage_id``)."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _ids(prefix: str, steps: Iterable[_Written]) -> Iterator[tuple[str, _Written]]:
    naming = Counter[str]()
    for step in steps:
        yield f"{prefix}{_id(step, naming)}", step


def _goto(do: tuple[model.Step, ...]) -> str:
    return do[-1].chain if isinstance(do[-1], model.Goto) else ""


def _own(policy: model.Policy) -> Iterator[_Written]:
    """Yield the stages that the policy itself writes."""
    for leaf in model.leaves(policy.when):
        yield leaf if isinstance(leaf, model.InSet) else leaf.stage
    yield from _specs(policy.do)


def _specs(do: tuple[model.Step, ...]) -> Iterator[model.StageSpec]:
    return (step for step in do if isinstance(step, model.StageSpec))


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
        companions=tuple(_core_companions(key.declaration.reads)),
        member=store,
    )


def _stage(
    table: model.Table,
    policy: model.Policy,
    hook: str,
    catalog: Catalog,
    home: str,
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
    reads = frozenset(declaration.reads).union(*(key.declaration.reads for _, key in looked_up))
    return Stage(
        id=name,
        kind=declaration.kind,
        name=declaration.name,
        text=bound.text,
        fragment=_fragment(bound, bound.type.fragment),
        parameters=_numbered(table, bound, f"{home}/{name}"),
        reads=reads,
        plain_tcp=bound.wants_plain_tcp,
        companions=(*_companions(bound), *_core_companions(reads)),
        values=tuple(value for value, _ in looked_up),
        chains=chains.with_numbers(table, bound),
        backends=declaration.backends,
    )


def _numbered(table: model.Table, bound: BoundStage, name: str) -> bytes:
    """Return the parameters with the numbers that the stage and its chains have in this table."""
    fields, packed = bound.type.fragment.fields, bytearray(bound.packed)
    if STAGE_ID in fields:
        member = fields[STAGE_ID]
        number = stage_number(name).to_bytes(member.bytes, "little")
        packed[member.offset : member.offset + member.bytes] = number
    for parameter, chain in bound.chains.items():
        member = fields[parameter]
        number = chains.number(table, chain).to_bytes(member.bytes, "little")
        packed[member.offset : member.offset + member.bytes] = number
    return bytes(packed)


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


def _core_companions(reads: Collection[str]) -> Iterator[tuple[str, FragmentRef]]:
    """Yield what core itself runs on every hook for stages that read ``reads``."""
    if "connection" in reads:
        path = str(core_object("connection"))
        for hook in ("ingress", "egress"):
            yield hook, FragmentRef("core", path, "core_connection", flow=True)


def _fragment(bound: BoundStage, layout: FragmentLayout) -> FragmentRef:
    found = bound.type
    reads = found.declaration.reads
    return FragmentRef(
        found.plugin,
        str(found.object),
        layout.name,
        layout.state_size,
        reads_flow(reads),
        bound.imports,
        "key" in reads,
    )
