# SPDX-License-Identifier: Apache-2.0
"""The policies and maps by which a table's controllers act, made when it is applied.

For each thing that a controller sets there is a map, keyed by subflow, and a policy whose actor reads it::

    [map.ecf-backup]                                [[policy]]
    key = "subflow"                                 name = "ecf: backup"
    type = "bool"                                   do = ["set_backup(on=subflow @ecf-backup, steers=[us])"]

They are like any other: `list` shows them, `off` and the guard stop them, `remove` takes their effects back,
and they stay in force while no process is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from emptcp.errors import EmptcpError, quoted
from emptcp.plugins import controllers
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.controllers import BoundController
from emptcp.plugins.manifest import SETTERS
from emptcp.policy import check, model

KEY = "subflow"
SIZE = 65536


def map_name(controller: str, setter: str) -> str:
    """Return the name of the map with a controller's settings."""
    return f"{controller}-{setter}"


def policy_name(controller: str, setter: str) -> str:
    """Return the name of the policy that puts them in force."""
    return f"{controller}: {setter}"


def bound(table: model.Table, catalog: Catalog) -> list[BoundController]:
    """Return a table's controllers with their types. Raises :class:`EmptcpError` at what does not fit."""
    return [controllers.bind(catalog.controller(one.use, one.where), one) for one in table.controllers]


def setters(controller: BoundController) -> tuple[str, ...]:
    """Return what a controller can set: the other end's rate is not this host's to pace."""
    wanted = controller.type.declaration.sets
    return wanted if controller.spec.steers == "us" else tuple(one for one in wanted if one != "rate")


def completed(table: model.Table, catalog: Catalog) -> model.Table:
    """Return a table with the policies and maps that its controllers need, which it may have already.

    Raises :class:`EmptcpError` when a controller does not fit, or a policy or map has such a name already.
    """
    if not table.controllers:
        return table
    found = bound(table, catalog)
    pairs = [(one, setter) for one in found for setter in setters(one)]
    policies = [one for one in (_policy(table, *pair) for pair in pairs) if one not in table.policies]
    maps = [one for one in (_map(*pair) for pair in pairs) if one not in table.maps]
    _refuse_taken(table, policies, maps)
    made = replace(table, policies=(*table.policies, *policies), maps=(*table.maps, *maps))
    check.check(made)
    return made


def _policy(table: model.Table, controller: BoundController, setter: str) -> model.Policy:
    spec = controller.spec
    return model.Policy(
        name=policy_name(spec.name, setter),
        table=table.name,
        hooks=(_hook(setter, spec.steers),),
        devices=_devices(table, spec),
        when=spec.when,
        do=(_actor(spec, setter),),
        netns=spec.netns,
        backend="tc",  # attaching XDP can reset a link
        optional=True,
        engine=table.engine,
        where=spec.where,
    )


def _hook(setter: str, steers: str) -> str:
    """An MP_PRIO steers who receives it; a rate is that of what goes out."""
    return "ingress" if setter == "backup" and steers == "us" else "egress"


def _devices(table: model.Table, spec: model.Controller) -> tuple[str, ...]:
    paths = [path for path in table.paths if path.name in spec.paths]
    if not paths or not all(path.devices for path in paths):
        return ("*",)
    return tuple(dict.fromkeys(device for path in paths for device in path.devices))


def _actor(spec: model.Controller, setter: str) -> model.StageSpec:
    actor, parameter, _ = SETTERS[setter]
    value = model.FromMap(KEY, map_name(spec.name, setter), spec.where)
    more = {
        "backup": model.Keyword("steers", model.Listing((model.Scalar(spec.steers),))),
        "rate": model.Keyword("mode", model.Scalar("pacing")),
    }
    return model.StageSpec(
        "actor", actor, keywords=(model.Keyword(parameter, value), more[setter]), where=spec.where
    )


def _map(controller: BoundController, setter: str) -> model.Map:
    name = map_name(controller.spec.name, setter)
    return model.Map(name, KEY, SETTERS[setter][2], SIZE, where=controller.spec.where)


def _refuse_taken(table: model.Table, policies: list[model.Policy], maps: list[model.Map]) -> None:
    for kind, taken, made in (("policy", table.policies, policies), ("map", table.maps, maps)):
        names = {one.name for one in taken}
        for one in made:
            if one.name in names:
                sentence = (
                    f"{kind} {quoted(one.name)} is needed by a controller, and the file has one so named"
                )
                raise EmptcpError(sentence, fix="Give yours another name.", where=str(one.where))


def declared(table: model.Table) -> Iterator[tuple[str, str]]:
    """Yield controller and setter of each map that a completed table has for its controllers."""
    maps = {one.name for one in table.maps}
    for controller in table.controllers:
        yield from ((controller.name, one) for one in SETTERS if map_name(controller.name, one) in maps)
