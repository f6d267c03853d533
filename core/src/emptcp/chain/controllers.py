# SPDX-License-Identifier: Apache-2.0
"""The policies, maps and sets by which a table's controllers act, made when it is applied.

For each thing that a controller sets on subflows there is a map, and a policy whose actor reads it::

    [map.ecf-backup]                                [[policy]]
    key = "subflow"                                 name = "ecf: backup"
    type = "bool"                                   do = ["set_backup(on=subflow @ecf-backup, steers=[us])"]

Who steers chooses among the devices of its paths, in their order: ``steer(to=[eth1, eth2], by=link,
link=subflow @spread-steer)`` at egress of all of them.

Who blocks paths has a set of connections and a policy for each path, which holds the SYNs of subflows that
join by it. Where paths are blocked unless they are allowed, announced addresses are kept back as well, from
connections that no path is allowed to::

    [set.gradual-allow-lte]     [[policy]]
    key = "connection"          name = "gradual: block lte"
                                when = "packet_type(mp_join) and not connection in @gradual-allow-lte"
                                do = ["blk_subflow(addresses=false)"]

They are like any other: `list` shows them, `off` and the guard stop them, `remove` takes their effects back,
and they stay in force while no process is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from emptcp.errors import EmptcpError, quoted
from emptcp.hooks.devices import is_glob
from emptcp.plugins import controllers
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.controllers import HOP, BoundController
from emptcp.plugins.setters import SETTERS, Setter
from emptcp.policy import check, model

SIZE = 65536
LINKS = 8
"""Paths among which a controller can steer, as many as the actor takes."""
RECORDED = ("bytes", "rtt", "retransmissions", "size")
"""What a controller at a hop is told of subflows."""
ALLOW, BLOCK = "allow", "block"
"""What the sets of connections hold: those that are allowed a path, or those that it is blocked for."""


@dataclass(frozen=True)
class Target:
    """One thing that a controller sets: where it is kept, and the policy that reads it there.

    ``name`` is a setter, or what is done to which path: ``block lte``, ``allow lte``. ``allow`` alone is for
    the addresses that are announced.
    """

    name: str
    kept: model.Map | model.Set
    policy: model.Policy


def store_name(controller: str, target: str) -> str:
    """Return the name of the map or set with a controller's settings."""
    return f"{controller}-{target.replace(' ', '-')}"


def policy_name(controller: str, target: str) -> str:
    """Return the name of the policy that puts them in force."""
    word, *path = target.split(" ")
    return f"{controller}: {' '.join([BLOCK if word == ALLOW else word, *path])}"


def allows(target: str) -> bool:
    """Return whether what is set are exceptions from blocked paths, not blocked paths."""
    return target == ALLOW or target.startswith(f"{ALLOW} ")


def bound(table: model.Table, catalog: Catalog) -> list[BoundController]:
    """Return a table's controllers with their types. Raises :class:`EmptcpError` at what does not fit."""
    return [controllers.bind(catalog.controller(one.use, one.where), one) for one in table.controllers]


def targets(table: model.Table, controller: BoundController) -> Iterator[Target]:
    """Yield what a controller can set: what the other end sends is not this host's to pace or to steer.

    Raises :class:`EmptcpError` where its paths are not what it takes to block or to steer.
    """
    for name in controller.type.declaration.sets:
        if SETTERS[name].by_path:
            yield from _doors(table, controller)
        elif name == "backup" or controller.spec.steers == "us":
            yield _of_subflows(table, controller.spec, name, SETTERS[name])


def _of_subflows(table: model.Table, spec: model.Controller, name: str, setter: Setter) -> Target:
    kept = store_name(spec.name, name)
    value = model.FromMap(setter.key, kept, spec.where)
    keywords = (model.Keyword(setter.parameter, value), *_keywords(table, spec, name))
    # An MP_PRIO steers who receives it; a rate is that of what goes out.
    hook = "ingress" if name == "backup" and spec.steers == "us" else "egress"
    made = _policy(table, spec, name, _paths(table, spec), spec.when)
    actor = model.StageSpec("actor", setter.actor, keywords=keywords, where=spec.where)
    held = model.Map(kept, setter.key, setter.type, SIZE, where=spec.where)
    return Target(name, held, replace(made, hooks=(hook,), do=(actor,)))


def watch(table: model.Table, controller: BoundController) -> Iterator[model.Policy]:
    """Yield the policy from whose stages a controller at a hop knows what passes on its paths.

    It stands behind the one that steers: what that sends elsewhere is seen there.
    """
    if controller.type.declaration.end != HOP:
        return
    spec = controller.spec
    made = _policy(table, spec, "watch", _paths(table, spec), spec.when)
    actors = (
        model.StageSpec("actor", "record", tuple(map(model.Scalar, RECORDED)), where=spec.where),
        model.StageSpec("actor", "get_subflow", where=spec.where),
    )
    yield replace(made, hooks=("ingress", "egress"), do=actors)


def _keywords(table: model.Table, spec: model.Controller, name: str) -> list[model.Keyword]:
    """Return what a setter's actor is told besides what is set."""
    if name == "backup":
        return [model.Keyword("steers", model.Listing((model.Scalar(spec.steers),)))]
    if name == "rate":
        return [model.Keyword("mode", model.Scalar("pacing"))]
    links = model.Listing(tuple(map(model.Scalar, _links(table, spec))))
    return [model.Keyword("to", links), model.Keyword("by", model.Scalar("link"))]


def _links(table: model.Table, spec: model.Controller) -> list[str]:
    """Return the devices to steer to, one for each path, in the order of the controller's paths."""
    of_path = {path.name: path.devices for path in table.paths}
    links = [device for name in spec.paths for device in of_path[name]]
    one_each = all(len(of_path[name]) == 1 for name in spec.paths)
    if one_each and 0 < len(links) <= LINKS and not any(map(is_glob, links)):
        return links
    raise EmptcpError(
        f"controller {quoted(spec.name)} steers, and its paths are not from 1 to {LINKS} of one device each",
        fix='Write paths = [".."] and a [path.NAME] for each, with the one device that is meant in dev.',
        where=str(spec.where),
    )


def _doors(table: model.Table, controller: BoundController) -> Iterator[Target]:
    spec, paths = controller.spec, _paths(table, controller.spec)
    if not paths:
        raise EmptcpError(
            f"controller {quoted(spec.name)} opens and blocks paths, and names none",
            fix='Write paths = [".."] and a [path.NAME] for each.',
            where=str(spec.where),
        )
    word = ALLOW if controller.type.declaration.blocked else BLOCK
    if word == ALLOW:
        yield _door(table, spec, ALLOW, paths, [_packets("add_addr")], "joins")
    for path in paths:
        chosen = [_packets("mp_join"), *(_of_address(path.local) for _ in [path] if path.local)]
        yield _door(table, spec, f"{word} {path.name}", [path], chosen, "addresses")


def _door(
    table: model.Table,
    spec: model.Controller,
    name: str,
    paths: list[model.Path],
    chosen: list[model.Select],
    left: str,
) -> Target:
    """Return a target that blocks what is chosen; ``left`` is the half of the actor that it does not need."""
    setter, kept = SETTERS["block"], store_name(spec.name, name)
    asked: model.Expression = model.InSet(setter.key, kept, spec.where)
    if allows(name):
        asked = model.Not(asked)
    own = [spec.when] if spec.when is not None else []
    made = _policy(table, spec, name, paths, model.conjunction(*own, *chosen, asked))
    keywords = (model.Keyword(left, model.Scalar("false")),)
    actor = model.StageSpec("actor", setter.actor, keywords=keywords, where=spec.where)
    held = model.Set(kept, setter.key, SIZE, where=spec.where)
    return Target(name, held, replace(made, hooks=("ingress", "egress"), do=(actor,)))


def _packets(kind: str) -> model.Select:
    return model.Select(model.StageSpec("selector", "packet_type", (model.Scalar(kind),)))


def _of_address(address: str) -> model.Select:
    either = model.Keyword("any", model.Scalar(address))
    return model.Select(model.StageSpec("selector", "address", keywords=(either,)))


def _policy(
    table: model.Table,
    spec: model.Controller,
    name: str,
    paths: list[model.Path],
    when: model.Expression | None,
) -> model.Policy:
    """Return a target's policy without its hooks and its actor."""
    return model.Policy(
        name=policy_name(spec.name, name),
        table=table.name,
        hooks=(),
        devices=_devices(paths),
        when=when,
        do=(),
        netns=spec.netns,
        backend="tc",  # attaching XDP can reset a link
        optional=True,
        engine=table.engine,
        where=spec.where,
    )


def _paths(table: model.Table, spec: model.Controller) -> list[model.Path]:
    return [path for path in table.paths if path.name in spec.paths]


def _devices(paths: list[model.Path]) -> tuple[str, ...]:
    if not paths or not all(path.devices for path in paths):
        return ("*",)
    return tuple(dict.fromkeys(device for path in paths for device in path.devices))


def completed(table: model.Table, catalog: Catalog) -> model.Table:
    """Return a table with the policies, maps and sets that its controllers need, which it may have already.

    Raises :class:`EmptcpError` when a controller does not fit, or something has such a name already.
    """
    if not table.controllers:
        return table
    found = [target for one in bound(table, catalog) for target in targets(table, one)]
    watching = [policy for one in bound(table, catalog) for policy in watch(table, one)]
    policies = [one for one in (*(one.policy for one in found), *watching) if one not in table.policies]
    kept = [one.kept for one in found if one.kept not in (*table.maps, *table.sets)]
    maps = [one for one in kept if isinstance(one, model.Map)]
    sets = [one for one in kept if isinstance(one, model.Set)]
    _refuse_taken("policy", table.policies, policies)
    _refuse_taken("map", table.maps, maps)
    _refuse_taken("set", table.sets, sets)
    made = replace(
        table,
        policies=(*table.policies, *policies),
        maps=(*table.maps, *maps),
        sets=(*table.sets, *sets),
    )
    check.check(made)
    return made


_Named = model.Policy | model.Map | model.Set


def _refuse_taken(kind: str, taken: Sequence[_Named], made: Sequence[_Named]) -> None:
    names = {one.name for one in taken}
    for one in made:
        if one.name in names:
            sentence = f"{kind} {quoted(one.name)} is needed by a controller, and the file has one so named"
            raise EmptcpError(sentence, fix="Give yours another name.", where=str(one.where))


def declared(table: model.Table, controller: model.Controller) -> Iterator[str]:
    """Yield the names of a controller's targets in a completed table."""
    kept = {one.name for one in table.maps} | {one.name for one in table.sets}
    doors = [ALLOW, *(f"{word} {path}" for path in controller.paths for word in (ALLOW, BLOCK))]
    names = [*(name for name, one in SETTERS.items() if not one.by_path), *doors]
    yield from (name for name in names if store_name(controller.name, name) in kept)
