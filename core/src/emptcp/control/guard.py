# SPDX-License-Identifier: Apache-2.0
"""The guard: switches a policy off that hurts connections.

Guarded are policies with an actor that drops packets, or inserts, rewrites or removes options, and every
policy with an actor that is not first-party: what a stranger's manifest leaves out is what the guard is for.
Harm is what the kernel of an end host counts (:mod:`emptcp.control.harm`) and what an end complains of in a
packet that passes by (:mod:`emptcp.control.alarms`). It is laid at the door of every guarded policy whose
guarded actors acted in the last seconds on that device, and only where the policy can have touched that
subflow (:mod:`emptcp.chain.reach`). Counts have no ends: sockets tell whose a fallback was
(:mod:`emptcp.control.fallbacks`). Trials tell who spoils what comes in, who makes plain TCP of connections
from their first data on, and who changes the DSS where one stands or was reset
(:mod:`emptcp.chain.spoiling`). What nobody tells of must be several, and is laid at the door of all that
acted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from emptcp.chain import pins, running, switches, trips
from emptcp.chain.counters import Counters
from emptcp.chain.description import Description, PolicyRecord, StageRecord
from emptcp.chain.reach import Reach
from emptcp.chain.running import Running
from emptcp.chain.spoiling import Spoilers
from emptcp.chain.trips import Trip
from emptcp.control.alarms import RESENT, RESET, SPOILT, Alarms, Complaint
from emptcp.control.fallbacks import Fallbacks
from emptcp.control.harm import FALLBACKS, WRONG_CHECKSUMS, Crowd, Rates
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace
from emptcp.mptcp.counters import read_counters
from emptcp.plugins import changes
from emptcp.plugins.catalog import Catalog, StageType
from emptcp.plugins.distributions import FIRST_PARTY

RECENT = 3.0
"""Seconds after a policy acted within which harm may be its doing."""

Name = tuple[str, str]
Harm = tuple[Counter[str], list[Complaint]]
"""What the kernel counted, and what was heard."""
Doings = dict[tuple[Name, str], Counter[str]]
"""What can be the doing of each policy, by device."""
Stages = dict[str, bool]
"""The names of guarded stages, and whether each is first-party: then it is believed what it left alone."""
Guarded = tuple[Running, PolicyRecord, Stages]
"""A program, a policy of it, and the policy's guarded stages."""


class _Space:
    """What is known of one namespace. ``acted``: when each policy last did, by device."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.alarms = Alarms(namespace)
        self.acted: dict[tuple[Name, str], float] = {}
        self._rates = Rates()
        self._fallbacks = Fallbacks(namespace)
        self.crowd = Crowd(RECENT)
        self._fell = 0

    def begin(self, now: float) -> None:
        """Begin to count."""
        counted = namespaces.call(self.namespace, read_counters)
        self._rates.beyond(now, counted)
        self._fell = sum(counted.get(name, 0) for name in FALLBACKS)

    def harm(self, now: float) -> Harm:
        """Return what was done since the last time."""
        heard = self.alarms.read()
        try:
            counted = namespaces.call(self.namespace, read_counters)
        except EmptcpError:  # it went
            return Counter(), heard
        risen = Counter(self._rates.beyond(now, counted))
        heard += self._told_by_sockets(counted, risen)
        if risen[WRONG_CHECKSUMS]:
            heard += self.alarms.suspicions()
        return self.crowd.add(now, +risen), heard

    def _told_by_sockets(self, counted: Mapping[str, int], risen: Counter[str]) -> Iterator[Complaint]:
        """Yield the fallbacks of connections that are there, and leave the others of ``risen``."""
        before, self._fell = self._fell, sum(counted.get(name, 0) for name in FALLBACKS)
        fallen = self._fallbacks.fresh() if self._fell != before else []
        if not any(risen[name] for name in FALLBACKS):
            return  # as many as before
        for one in fallen:
            for device in one.devices or ("",):
                yield Complaint(device, "fallback to plain TCP", one.ends)
        explained = len({one.token for one in fallen})
        for name in FALLBACKS:
            taken = min(explained, risen[name])
            risen[name] -= taken
            explained -= taken


class Guard:
    """Watches guarded policies of all tables, or of one. Call :meth:`look` at least every second.

    Close it. Counting begins with :meth:`begin`, or else with the first look.
    """

    def __init__(self, table: str = "") -> None:
        self._table = table
        self._spaces: dict[int, _Space] = {}
        self._worked: dict[tuple[str, int, str, Name], int] = {}
        self._types: dict[Name, StageType] = {}
        self._reach = Reach(Catalog(()))
        self._spoilers = Spoilers(Catalog(()))
        self._due: list[Trip] = []
        self._began = False

    def know(self, catalog: Catalog) -> None:
        """Learn what the stages of these plugins do to packets."""
        self._types = {(one.plugin, one.name): one for one in catalog if one.kind == "actor"}
        self._reach.close()
        self._reach = Reach(catalog)
        self._spoilers.close()
        self._spoilers = Spoilers(catalog)

    def begin(self, spaces: Iterable[Namespace]) -> None:
        """Begin to count in namespaces before a policy is put there: its first packet may do harm."""
        self._began = True
        for namespace in spaces:
            if namespace.cookie not in self._spaces:
                space = self._spaces[namespace.cookie] = _Space(namespace)
                space.begin(time.monotonic())

    def look(self) -> list[Trip]:
        """Look at all that is guarded; switch off what hurts, and return it.

        Raises :class:`EmptcpError` or :class:`~emptcp.pybpf.BpfError` when what runs can't be read.
        """
        now = time.monotonic()
        with running.everything(pins.find()) as everything:
            found = list(everything.values())
            guarded = [
                (one, policy, stages) for one in found for policy, stages in self._guarded(one.description)
            ]
            self._open(
                {
                    one.description.cookie: one.description.netns
                    for one, policy, _ in guarded
                    if self._owns(policy)
                }
            )
            # What a policy did is read after the harm: the other way round it might still be to come.
            harm = {cookie: space.harm(now) for cookie, space in self._spaces.items()}
            self._note(now, guarded)
        there = {
            (policy.table, policy.name)
            for one in found
            for policy in one.description.policies
            if self._owns(policy)
        }
        for cookie, space in self._spaces.items():
            self._due += _blamed(space, self._doings(space, harm[cookie], guarded, now), now)
        self._due = [trip for trip in self._due if (trip.table, trip.policy) in there]
        for trip in self._due:  # all of them again at the next look, should one fail
            switches.off(trip.table, trip.policy)
        tripped, self._due = self._due, []
        for trip in tripped:
            trips.note(trip)
        return tripped

    def close(self) -> None:
        """Watch no more."""
        for space in self._spaces.values():
            space.alarms.close()
        self._spaces.clear()
        self._reach.close()
        self._spoilers.close()

    def has_work(self) -> bool:
        """Return whether anything that runs now is guarded."""
        with running.everything() as found:
            return any(
                self._owns(policy) for one in found.values() for policy, _ in self._guarded(one.description)
            )

    @property
    def watches(self) -> bool:
        """Whether anything was there to guard at the last look."""
        return bool(self._spaces)

    def _guarded(self, about: Description) -> Iterator[tuple[PolicyRecord, Stages]]:
        """Yield a program's guarded policies, each with its guarded stages."""
        shared: dict[str, Stages] = {chain.table: {} for chain in about.chains}
        for chain in about.chains:
            shared[chain.table] |= self._stages(chain.home, chain.stages)
        for policy in about.policies:
            stages = self._stages(policy.home, policy.stages)
            if any(stage.kind == "goto" for stage in policy.stages):
                stages |= shared.get(policy.table, {})
            if stages:
                yield policy, stages

    def _owns(self, policy: PolicyRecord) -> bool:
        """Return whether it may be switched off here: other tables' policies only explain harm."""
        return self._table in ("", policy.table)

    def _stages(self, home: str, stages: Iterable[StageRecord]) -> Stages:
        actors = ((f"{home}/{one.id}", self._known(one)) for one in stages if one.kind == "actor")
        return {key: known is not None for key, known in actors if known is None or can_hurt(known)}

    def _known(self, stage: StageRecord) -> StageType | None:
        """Return what a first-party stage is; ``None`` for a stranger's, whose manifest may be wrong."""
        known = self._types.get((stage.plugin, stage.name.rpartition(":")[2]))
        return known if known is not None and known.distribution in FIRST_PARTY else None

    def _open(self, wanted: Mapping[int, str]) -> None:
        for cookie in self._spaces.keys() - wanted.keys():
            self._spaces.pop(cookie).alarms.close()
        for cookie in wanted.keys() - self._spaces.keys():
            try:
                namespace = namespaces.by_cookie(cookie, wanted[cookie])
                self._spaces[cookie] = _Space(namespace)
            except EmptcpError:  # it went, and its policies with it
                continue

    def _doings(self, space: _Space, harm: Harm, guarded: Iterable[Guarded], now: float) -> Doings:
        """Return what can be the doing of each policy of a namespace, by device."""
        rose, heard = harm
        found: Doings = {}
        shown = False
        for one, policy, _ in guarded if rose or heard else ():
            about = one.description
            place = (policy.table, policy.name), about.device
            if about.cookie != space.namespace.cookie or place not in space.acted:
                continue
            own = [complaint for complaint in heard if self._is_of(about, policy, complaint)]
            shown = shown or any(one.packet and one.what == SPOILT for one in own)
            counted = Counter({name: rose[name] for name in rose if can_raise(name, about.hook)})
            found[place] = found.get(place, Counter()) | counted | Counter(one.what for one in own)
        if shown:  # by a trial; the others did not do it
            space.crowd.explain(now, WRONG_CHECKSUMS)
            for seen in found.values():
                del seen[WRONG_CHECKSUMS]
        return found

    def _is_of(self, about: Description, policy: PolicyRecord, complaint: Complaint) -> bool:
        """Return whether a complaint can be of what a policy did, and is, where a trial can show it."""
        if complaint.device not in ("", about.device):
            return False
        if not self._reach.includes(policy, about.hook, complaint.ends):
            return False
        if not complaint.packet:
            return True
        if complaint.what == SPOILT:
            return about.hook == "ingress" and self._spoilers.spoils(about, policy, complaint.packet)
        if complaint.what in (RESENT, RESET):
            return self._spoilers.breaks_mptcp(about, policy, complaint.packet)
        return self._spoilers.ends_mptcp(about, policy, complaint.packet, complaint.leaves)

    def _note(self, now: float, guarded: Iterable[Guarded]) -> None:
        """Note which policies acted since the last look."""
        for one, policy, stages in guarded:
            about, counts = one.description, one.counts()
            name = policy.table, policy.name
            worked = sum(worked_on(counts[key], believed) for key, believed in stages.items())
            place = about.hook, about.cookie, about.device, name
            before = self._worked.get(place, 0 if self._began else worked)
            self._worked[place] = worked
            if worked > before and about.cookie in self._spaces:
                self._spaces[about.cookie].acted[name, about.device] = now
        self._began = True


def can_raise(count: str, hook: str) -> bool:
    """Return whether a policy at a hook can raise a count of its own host: not what only others receive."""
    return count != WRONG_CHECKSUMS or hook == "ingress"


def worked_on(counts: Counters, believed: bool) -> int:
    """Return how many packets an actor may have changed or dropped: those that it gave a reason for not."""
    given = counts.packets - counts.skipped
    return given - sum(counts.reasons.values()) if believed else given


def can_hurt(actor: StageType) -> bool:
    """Return whether an actor drops packets, or inserts, rewrites or removes options."""
    declared = actor.declaration
    return "DROP" in declared.verdicts or any(changes.parse(word).verbs for word in declared.modifies)


def _blamed(space: _Space, doings: Doings, now: float) -> Iterator[Trip]:
    """Yield the policies that the harm is laid at the door of."""
    blamed: dict[Name, Counter[str]] = {}
    for (name, device), when in list(space.acted.items()):
        seen = doings.get((name, device), Counter())
        if now - when > RECENT:
            del space.acted[name, device]
        elif seen:
            blamed[name] = blamed.get(name, Counter()) | seen
    for (table, policy), seen in blamed.items():
        for key in [key for key in space.acted if key[0] == (table, policy)]:
            del space.acted[key]  # it is off: what comes yet came before that
        where = space.namespace
        yield Trip(table, policy, where.name, where.cookie, time.time(), dict(seen))
