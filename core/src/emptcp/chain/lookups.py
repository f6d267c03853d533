# SPDX-License-Identifier: Apache-2.0
"""The sets and maps of a table, bound to the plugins that provide their keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from emptcp.chain import chains
from emptcp.chain.plan import FragmentRef, ValueLookup, reads_flow
from emptcp.chain.storage import Storage, Store, ValueForm
from emptcp.errors import EmptcpError, quoted
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.plugins.keys import KeyType
from emptcp.policy import model, values
from emptcp.policy.place import Place


def key_fragment(key: KeyType) -> FragmentRef:
    """Return where a key's fragment is. What it writes goes to core's buffer, not to a state."""
    flow = reads_flow(key.declaration.reads)
    return FragmentRef(key.plugin, str(key.object), key.declaration.fragment, 0, flow, key.imports)


def of_set(table: model.Table, leaf: model.InSet, catalog: Catalog) -> tuple[Store, KeyType]:
    """Bind a set that an expression asks, with its key. Raises :class:`EmptcpError` at the leaf's place."""
    found = next(one for one in table.sets if one.name == leaf.set)
    key = catalog.key(leaf.key, leaf.where)
    return _store(table, found, key, None), key


def of_values(
    table: model.Table, stage: BoundStage, catalog: Catalog
) -> Iterator[tuple[ValueLookup, KeyType]]:
    """Yield the look-ups of a stage whose values come from maps, each with its key.

    Raises :class:`EmptcpError` at the place of the argument.
    """
    for name, value in stage.values.items():
        if isinstance(value, model.FromMap):
            key, form = catalog.key(value.key, value.where), _form(stage, name)
            store = _store(table, _map(table, value, form), key, form)
            yield ValueLookup(store, form.field.offset, form.field.size), key


def _form(stage: BoundStage, name: str) -> ValueForm:
    parameter = next(one for one in stage.type.declaration.parameters if one.name == name)
    reader = f"parameter '{name}' of {stage.type.kind} '{stage.type.name}'"
    return ValueForm(parameter, stage.type.fragment.fields[name], reader)


def _map(table: model.Table, value: model.FromMap, form: ValueForm) -> model.Map:
    found = next(one for one in table.maps if one.name == value.map)
    if found.key != value.key:
        sentence = f"map {quoted(found.name)} has key {quoted(found.key)}, not {quoted(value.key)}"
        raise EmptcpError(sentence, fix=f"Write {found.key} @{found.name}.", where=str(value.where))
    if found.type == "chain":
        sentence = f"map {quoted(found.name)} can't hold chains: their numbers are the table's own"
        raise EmptcpError(sentence, fix="Let an actor choose among chains.", where=str(found.where))
    if found.type != form.parameter.type.kind:
        raise EmptcpError(
            f"map {quoted(found.name)} has values of type {found.type}, and {form.reader}, which reads it, "
            f"is of type {form.parameter.type.kind}",
            fix=f'Write type = "{form.parameter.type.kind}", or read another map.',
            where=str(value.where),
        )
    return found


def _store(table: model.Table, found: model.Set | model.Map, key: KeyType, value: ValueForm | None) -> Store:
    kind, format = "set" if isinstance(found, model.Set) else "map", key.declaration.format
    if format.is_prefix and (found.lru or found.timeout):
        raise EmptcpError(
            f"{kind} {quoted(found.name)} holds prefixes, of which none can expire or make room: the next "
            "shorter one would stay hidden behind it",
            fix="Remove timeout and lru.",
            where=str(found.where),
        )
    layout = value.layout if value is not None else ""
    stored = Storage(repr(format), format.size, layout, found.size, found.lru, format.is_prefix)
    made = Store(kind, table.name, found.name, key_fragment(key), stored, format, value, found.timeout)
    return replace(made, entries=_entries(made, found))


def _entries(store: Store, found: model.Set | model.Map) -> tuple[tuple[bytes, bytes], ...] | None:
    """Return what the file lists. Raises :class:`EmptcpError` for what can't be an entry, or is too many."""
    if found.entries is None:
        return None
    written = found.entries if isinstance(found, model.Map) else [(key, "") for key in found.entries]
    packed: dict[bytes, bytes] = {}
    try:
        for key, value in written:
            packed[store.key_of(key)] = store.value_of(value)
    except EmptcpError as error:
        raise EmptcpError(error.sentence, fix=error.fix, where=str(found.where)) from None
    if len(packed) > store.storage.size:
        sentence = f"{store.title} lists {len(packed)} entries, more than its size, {store.storage.size}"
        raise EmptcpError(sentence, fix="Write a larger size.", where=str(found.where))
    return tuple(packed.items())


def everything(table: model.Table, catalog: Catalog) -> list[Store]:
    """Return the sets and maps of a table: each set, and each map that some stage reads.

    A set that nothing asks, of a key that no plugin provides, is left out. Raises :class:`EmptcpError` when
    stages that read one map understand its values differently.
    """
    found: dict[tuple[str, str], Store] = {}
    if not table.sets and not table.maps:
        return []
    for policy in table.policies:
        for leaf in model.leaves(policy.when):
            if isinstance(leaf, model.InSet):
                found["set", leaf.set] = of_set(table, leaf, catalog)[0]
        for spec in _specs(table, policy, catalog):
            bound = catalog.bind(spec, devices=values.any_device)
            for lookup, _ in of_values(table, bound, catalog):
                _agree(found.setdefault(("map", lookup.store.name), lookup.store), lookup.store, spec.where)
    for one in table.sets:
        if ("set", one.name) not in found and catalog.has_key(one.key):
            leaf = model.InSet(one.key, one.name, one.where)
            found["set", one.name] = of_set(table, leaf, catalog)[0]
    return list(found.values())


def _agree(first: Store, other: Store, where: Place) -> None:
    assert first.value is not None
    assert other.value is not None
    if first.value.layout != other.value.layout:
        raise EmptcpError(
            f"{first.title} is read by {first.value.reader} and by {other.value.reader}, which differ in "
            f"{_difference(first.value, other.value)}",
            fix="Give each a map of its own.",
            where=str(where),
        )


def _difference(one: ValueForm, other: ValueForm) -> str:
    if one.parameter.type.meaning != other.parameter.type.meaning:
        return "unit or names"
    bounds = [(form.parameter.minimum, form.parameter.maximum) for form in (one, other)]
    return "range" if bounds[0] != bounds[1] else "bytes of their struct's member"


def _specs(table: model.Table, policy: model.Policy, catalog: Catalog) -> Iterator[model.StageSpec]:
    """Yield the stages that a policy comes to."""
    reachable = chains.reachable(table, policy.do, chains.as_far_as_known(catalog))
    yield from model.selectors(policy.when)
    for do in (policy.do, *(chain.do for chain in reachable)):
        yield from (step for step in do if isinstance(step, model.StageSpec))


def without_entries(table: model.Table) -> model.Table:
    """Return a table with the sets and maps that its policies and chains look up alone, without entries."""
    whens = [policy.when for policy in table.policies]
    sets = {leaf.set for one in whens for leaf in model.leaves(one) if isinstance(leaf, model.InSet)}
    chains = [*(policy.do for policy in table.policies), *(chain.do for chain in table.chains)]
    stages = [step for do in chains for step in do if isinstance(step, model.StageSpec)]
    stages += [stage for one in whens for stage in model.selectors(one)]
    maps = {argument.map for stage in stages for argument in _from_maps(stage)}
    return replace(
        table,
        sets=tuple(replace(one, entries=None) for one in table.sets if one.name in sets),
        maps=tuple(replace(one, entries=None) for one in table.maps if one.name in maps),
        controllers=(),
        paths=(),
        exact=False,
    )


def _from_maps(stage: model.StageSpec) -> Iterator[model.FromMap]:
    for argument in (*stage.positional, *(keyword.value for keyword in stage.keywords)):
        if isinstance(argument, model.FromMap):
            yield argument
