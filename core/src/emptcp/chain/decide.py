# SPDX-License-Identifier: Apache-2.0
"""What has to happen at each device and hook so that a table is what it should be. Changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from emptcp.chain import engines, layout, placement, stranded
from emptcp.chain.bind import bind
from emptcp.chain.objects import core_object
from emptcp.chain.pins import Location
from emptcp.chain.placement import HOOKS, Site
from emptcp.chain.plan import BoundPolicy, Plan, companions_for, plan
from emptcp.chain.program import L2, Loaded, Place
from emptcp.chain.running import Running
from emptcp.chain.stranded import Stranded
from emptcp.errors import EmptcpError, quoted
from emptcp.hooks import attach, devices, namespaces
from emptcp.hooks.choice import Choice, Limit, choose
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manifest import BACKENDS
from emptcp.policy import file, model
from emptcp.pybpf import ObjectSpec

KEEP, TUNE, SWITCH, ATTACH, DETACH = "keep", "tune", "switch", "attach", "detach"


@dataclass
class Decision:
    """What to do with one hook of one device.

    ``before`` is what runs there. ``asked`` is the back-end that was asked for, ``auto`` among them, and
    ``place.backend`` the one tried first. ``load`` loads the program for a back-end's code (``xdp``, ``tc``)
    and leaves it in ``loaded``. ``limits`` are stages that work at some back-ends only. ``suspended``: while
    everything is off, programs are pinned and not attached. ``reserved`` holds the place on the device while
    the program is loaded; ``attached`` is what carrying it out attached.
    """

    action: str
    location: Location
    site: Site
    hook: str
    before: Running | None
    policies: tuple[BoundPolicy, ...] = ()
    plan: Plan | None = None
    place: Place | None = None
    asked: str = "auto"
    limits: tuple[Limit, ...] = ()
    load: Callable[[Decision, str], Loaded] | None = None
    loaded: Loaded | None = None
    suspended: bool = False
    reserved: attach.Attached | None = None
    attached: attach.Attached | None = None


def decide(
    table: str,
    sites: Mapping[tuple[int, int], Site],
    before: Mapping[Location, Running],
    catalog: Catalog,
    given_up: list[Stranded] | None = None,
    *,
    suspended: bool = False,
) -> list[Decision]:
    """Return a decision per hook of every device where ``table`` runs or should run.

    ``sites`` is where it should run; empty when it is to be removed. Raises :class:`EmptcpError` when a
    policy of another table has to be bound anew and can't be; with a list ``given_up`` it goes there and is
    left out.
    """
    everywhere = dict(sites)
    for running in before.values():
        if table in {policy.table for policy in running.description.policies}:
            everywhere.setdefault(_key(running), site_of(running))
    lost: list[Stranded] = []
    found = [
        decision
        for key in sorted(everywhere)
        for decision in _device(table, everywhere[key], before, catalog, lost, suspended)
    ]
    if lost and given_up is None:
        raise stranded.refusal(table, not sites, lost)
    if given_up is not None:
        given_up += lost
    return found


def _device(
    table: str,
    site: Site,
    before: Mapping[Location, Running],
    catalog: Catalog,
    lost: list[Stranded],
    suspended: bool,
) -> Iterator[Decision]:
    if site.device_gone:
        yield from _forgotten(site, before)
        return
    wanted = {
        hook: _merged(table, site, hook, before.get(site.location(hook)), catalog, lost) for hook in HOOKS
    }
    everything = [policy for policies in wanted.values() for policy in policies]
    engine = _engine(site, everything)
    for hook in HOOKS:
        made = plan(hook, wanted[hook], companions_for(hook, everything))
        running = before.get(site.location(hook))
        decision = _hook(site, hook, running, tuple(wanted[hook]), made, engine, suspended)
        if decision is not None:
            decision.suspended = suspended
            yield decision


def _forgotten(site: Site, before: Mapping[Location, Running]) -> Iterator[Decision]:
    """Let go of programs whose device is gone: of all tables, as none of them runs there."""
    for hook in HOOKS:
        location = site.location(hook)
        if location in before:
            yield Decision(DETACH, location, site, hook, before[location])


def _engine(site: Site, policies: Sequence[BoundPolicy]) -> str:
    """Return the engine of a device's programs, which all tables there must agree on."""
    by_engine = {policy.engine: policy.table for policy in policies}
    if len(by_engine) > 1:
        (one, first), (other, second) = sorted(by_engine.items())
        raise EmptcpError(
            f"tables {quoted(first)} and {quoted(second)} want the engines '{one}' and '{other}' on device "
            f"{site.device.name}, which can have one",
            fix="Write the same engine, and the same tail.carrier, in both files.",
        )
    return next(iter(by_engine), engines.FUSED)


def _hook(
    site: Site,
    hook: str,
    running: Running | None,
    policies: tuple[BoundPolicy, ...],
    made: Plan,
    engine: str,
    suspended: bool,
) -> Decision | None:
    location = site.location(hook)
    if not made.policies and not made.companions:
        return Decision(DETACH, location, site, hook, running) if running is not None else None
    limits = tuple(_limits(policies))
    asked, choice = _backend(site, hook, running, limits, policies)
    place = _place(site, hook, made, choice, engine)
    action = _action(running, site, place, made, suspended)
    return Decision(action, location, site, hook, running, policies, made, place, asked, limits)


def _limits(policies: Sequence[BoundPolicy]) -> Iterator[Limit]:
    """Yield the stages that work at some back-ends only."""
    for policy in policies:
        for stage in policy.everything:
            if stage.backends != BACKENDS:
                yield Limit(f"{stage.kind} '{stage.name}' of policy {quoted(policy.name)}", stage.backends)


def _action(running: Running | None, site: Site, place: Place, made: Plan, suspended: bool) -> str:
    if running is None or (not suspended and is_lost(running, site)):
        return ATTACH
    if running.description.fingerprint != place.fingerprint:
        return SWITCH
    values, described = running.values(), running.description.stages()
    # A command that died between parameters and description left new values under old texts.
    alike = all(
        (values[step.name], described[step.name].text) == (step.stage.parameters, step.stage.text)
        for step in made.steps
    )
    return KEEP if alike else TUNE


def _backend(
    site: Site,
    hook: str,
    running: Running | None,
    limits: Sequence[Limit],
    policies: Sequence[BoundPolicy],
) -> tuple[str, Choice]:
    """Return the back-end to ask for and the one to try first; ``auto`` moves nothing that can stay."""
    asked = _asked(site, policies) if hook == "ingress" else "auto"
    if running is not None and asked in ("auto", running.description.backend):
        about = running.description
        if all(limit.allows(about.backend) for limit in limits):
            return about.backend, Choice(about.backend, about.reason)
    return asked, choose(site.device, hook, asked, limits)[0]


def _asked(site: Site, policies: Sequence[BoundPolicy]) -> str:
    """Return the back-end that the table asks for; if it leaves that open, the one of another table."""
    others = (policy.backend for policy in policies if policy.backend != "auto")
    return site.backends.get("backend") or next(others, "auto")


def _place(site: Site, hook: str, made: Plan, choice: Choice, engine: str) -> Place:
    return Place(
        hook=hook,
        backend=choice.backend,
        l2=L2[site.device.link],
        reason=choice.reason,
        device=site.device.name,
        ifindex=site.device.ifindex,
        netns=site.namespace.name,
        cookie=site.namespace.cookie,
        fingerprint=fingerprint(made, f"{choice.backend} {engine}"),
        engine=engine,
    )


def fingerprint(made: Plan, how: str) -> str:
    """Return a hash over all that makes a program, but for its parameters' values.

    ``how`` names back-end and engine.
    """
    digest = hashlib.sha256(f"{layout.VERSION} {how} {made.hook} {made.needs}".encode())
    for path in sorted({str(core_object()), *(f.object for f in made.fragments)}):
        digest.update(ObjectSpec.read(path).digest)
    for policy in made.policies:
        digest.update(repr((policy.table, policy.name, policy.plain_tcp)).encode())
    for step in made.steps:
        shape = (step.policy, step.if_match, step.if_not, step.gotos, step.name, step.stage.fragment)
        digest.update(
            repr((shape, len(step.stage.parameters), step.stage.member, step.stage.values)).encode()
        )
    digest.update(repr(made.companions).encode())
    return digest.hexdigest()[:16]


def _merged(
    table: str, site: Site, hook: str, running: Running | None, catalog: Catalog, lost: list[Stranded]
) -> list[BoundPolicy]:
    """Return the hook's policies: this table's as wanted, the others' as they run; by table."""
    merged = list(site.policies[hook])
    others = running.description if running is not None else None
    for record in others.policies if others is not None else ():
        if record.table == table:
            continue
        try:
            merged.append(_again(record.source, hook, site, catalog))
        except EmptcpError as error:
            chains = [one for one in others.chains if one.table == record.table] if others else []
            lost.append(stranded.of(record, chains, site.device.name, error, catalog))
    return sorted(merged, key=lambda policy: policy.table)


def _again(source: str, hook: str, site: Site, catalog: Catalog) -> BoundPolicy:
    """Bind a running policy of another table anew, because its program is made anew."""
    table = file.loads(source)
    return bind(table, table.policies[0], hook, catalog, placement.indexes(site.namespace))


def _key(running: Running) -> tuple[int, int]:
    return running.location.cookie, running.location.ifindex


def site_of(running: Running) -> Site:
    """Return where a program runs; its device, or the whole namespace, may be gone."""
    about = running.description
    gone = devices.Device(about.device, about.ifindex, "ethernet", "", 0, "")
    try:
        namespace = namespaces.by_cookie(about.cookie, about.netns)
    except EmptcpError:
        nowhere = namespaces.Namespace(about.cookie, namespaces.NAMED / about.netns, about.netns)
        return Site(nowhere, gone, gone=True, device_gone=True)
    for device in devices.list_devices(namespace):
        if device.ifindex == about.ifindex:
            return Site(namespace, device)
    return Site(namespace, gone, device_gone=True)


def is_lost(running: Running, site: Site) -> bool:
    """Return whether a program is not attached any more: its device went, or someone took it away."""
    if running.link is not None:
        return running.detached
    about = running.description
    return site.gone or attach.restore(site.namespace, site.device, about.hook, None) is None


def why_lost(site: Site) -> str:
    """Return what happened to a program that is not attached any more."""
    if site.gone:
        return "its network namespace is gone"
    return "its device is gone" if site.device_gone else "it was detached by another hand"


def leaving(decisions: Sequence[Decision]) -> Iterator[Location]:
    """Yield where what runs is replaced, or ends."""
    for decision in decisions:
        if decision.before is not None and decision.action in (SWITCH, ATTACH, DETACH):
            yield decision.location


def unreachable(table: model.Table, catalog: Catalog) -> list[str]:
    """Return a warning for each policy that can never be given a packet.

    That is so when a policy before it selects everything, for the same devices and hooks, and its chain ends
    in an actor that lets no later policy see the packet.
    """
    found: list[str] = []
    closed: list[model.Policy] = []
    for policy in table.policies:
        earlier = next((one for one in closed if _covers(one, policy)), None)
        if earlier is not None:
            found.append(
                f"policy {quoted(policy.name)} is never reached: "
                f"{quoted(earlier.name)} before it takes every packet"
            )
        if policy.when is None and _closes(table, policy, catalog):
            closed.append(policy)
    return found


def _covers(earlier: model.Policy, later: model.Policy) -> bool:
    wider = set(earlier.hooks) >= set(later.hooks) and set(earlier.devices) >= set(later.devices)
    return wider and earlier.netns == later.netns


def _closes(table: model.Table, policy: model.Policy, catalog: Catalog) -> bool:
    """Whether some actor of the chain always ends the walk through the policies."""
    return any(
        set(catalog.actor(spec.name).declaration.verdicts) <= {"ACCEPT", "DROP", "REDIRECT"}
        for spec in model.actors(table, policy.do)
    )
