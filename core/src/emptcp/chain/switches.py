# SPDX-License-Identifier: Apache-2.0
"""Switch everything, a table or a policy off and on again: what the commands and the Python API call.

*Everything* off detaches each program at once; programs, maps, counters and parameters stay pinned, and *on*
attaches the very same programs. A table or policy that is off is skipped by its programs, which stay
attached: a word of their parameters says so. Neither reads a policy file or needs a plugin to be sound. The
plugins' Python sides are told, so that effects are taken back or come again; one that can't be told is a
warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace

from emptcp import pybpf
from emptcp.chain import decide, effects, pins, running, sockets, suspension, tables
from emptcp.chain import off as record
from emptcp.chain.effects import Effects
from emptcp.chain.off import Names, Off
from emptcp.chain.pins import Location, Pins
from emptcp.chain.running import Everything, Running
from emptcp.chain.session import Done, Outcome, recorded
from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manager import Manager


@dataclass
class Switched(Outcome):
    """What was switched; ``table`` is empty for everything. ``failed``: something could not be."""

    failed: bool = False


def off(table: str = "", policy: str = "", *, dry_run: bool = False, keep_effects: bool = False) -> Switched:
    """Switch everything off, or a table, or one of its policies.

    Everything goes off also where another command holds the lock or the run folder can't be written. Raises
    :class:`EmptcpError` when there is no such table or policy.
    """
    if not table:
        return _everything_off(dry_run, keep_effects)
    with tables.lock(), closing(_Work.begin(table, dry_run)) as work:
        names = work.named(table, policy)
        work.skip("off", names, work.before.and_also(table, policy), keep_effects)
        return work.outcome


def on(table: str = "", policy: str = "", *, dry_run: bool = False) -> Switched:
    """Switch everything on again, or a table with all its policies, or one policy.

    Raises :class:`EmptcpError` when there is no such table or policy.
    """
    with tables.lock(), closing(_Work.begin(table, dry_run)) as work:
        if table:
            names = work.named(table, policy)
            after = work.before.without(table, policy, [name for _, name in work.named(table)])
            work.skip("on", names, after)
        else:
            work.attach()
        return work.outcome


def _everything_off(dry_run: bool, keep_effects: bool) -> Switched:
    with _lock_if_possible() as refused, closing(_Work.begin("", dry_run)) as work:
        work.detach(keep_effects, finish=not refused)
        if refused:
            # Who holds the lock may attach something yet: the next command looks again.
            work.outcome.warnings.append(f"not waited for: {refused}")
        return work.outcome


@contextmanager
def _lock_if_possible() -> Iterator[str]:
    """Take the lock; give why not where another command keeps it, or the run folder can't be used."""
    lock, refused = tables.lock(), ""
    try:
        lock.__enter__()
    except (EmptcpError, OSError) as error:
        refused = str(error)
    try:
        yield refused
    finally:
        if not refused:
            lock.__exit__(None, None, None)


@dataclass
class _Work:
    """One command's view: what runs, what was off before, what it did."""

    tree: Pins | None
    found: Everything
    before: Off
    outcome: Switched

    @classmethod
    def begin(cls, table: str, dry_run: bool) -> _Work:
        """Look at what runs and what is off."""
        tree = pins.find()
        with ExitStack() as opened:
            found = opened.enter_context(running.everything(tree))
            work = cls(tree, found, record.read_or_see(found), Switched(table, dry_run=dry_run))
            opened.pop_all()
        return work

    def close(self) -> None:
        """Let go of what runs."""
        self.found.close()

    # Everything.

    def detach(self, keep_effects: bool, finish: bool) -> None:
        """Take every program off its device."""
        there = self._attached("detach", when=True)
        ending = frozenset(name for name in there if not self.before.silences(*name))
        after = replace(self.before, everything=True)
        self._carry_out(after, ending, keep_effects=keep_effects, finish=finish)

    def attach(self) -> None:
        """Put every program back on its device."""
        after = replace(self.before, everything=False)
        missing = self._attached("attach", when=False)
        self.outcome.warnings += after.listed()
        starting = frozenset(name for name in missing if not after.skips(*name))
        self._carry_out(after, starting, attach=True)

    def _attached(self, action: str, when: bool) -> Names:
        """Note the action for programs that are attached (or are not); return their policies."""
        names: Names = frozenset()
        for one in self.found.values():
            fits = suspension.attached(one) == when
            names |= _policies(one) if fits else frozenset()
            if fits and one.description.backend == "xdp" and not decide.site_of(one).device.virtual:
                self.outcome.warnings.append(
                    f"this may reset the link of {one.description.device} for a moment"
                )
            self.outcome.done.append(_done(action if fits else "keep", one, _policies(one)))
        return names

    # Tables and policies.

    def named(self, table: str, policy: str = "") -> Names:
        """Return a table's policies, or the one. Raises :class:`EmptcpError` when there is no such thing."""
        running_ones = {name for one in self.found.values() for name in _policies(one)}
        names = running_ones | self.before.policies | _meant(table)
        known = {name for name, _ in names} | {*tables.names(), *self.before.tables}
        if table not in known:
            near = did_you_mean(table, sorted(known)).capitalize()
            raise EmptcpError(
                f"there is no table {quoted(table)}",
                fix=near or f"There are: {', '.join(sorted(known)) or 'none'}.",
            )
        own = sorted(name for one, name in names if one == table)
        if policy and policy not in own:
            near = did_you_mean(policy, own).capitalize()
            raise EmptcpError(
                f"table {quoted(table)} has no policy {quoted(policy)}", fix=near or "See: emptcp list"
            )
        return frozenset((table, name) for name in own if policy in ("", name))

    def skip(self, action: str, names: Names, after: Off, keep_effects: bool = False) -> None:
        """Let the programs of ``names`` skip what is off, and run what is not."""
        changed = frozenset(name for name in names if self.before.skips(*name) != after.skips(*name))
        for one in self.found.values():
            if own := _policies(one) & names:
                _check_switchable(one, own)
                self.outcome.done.append(
                    _done(action if own & changed else "keep", one, own & changed or own)
                )
        if after.everything:
            self.outcome.warnings += [record.EVERYTHING]
            changed = frozenset()  # their plugins were told when everything went off
        self._carry_out(after, changed, keep_effects=keep_effects)

    # Both.

    def _carry_out(
        self,
        after: Off,
        changed: Names,
        *,
        attach: bool = False,
        keep_effects: bool = False,
        finish: bool = True,
    ) -> None:
        """Write what is off, switch, and tell the plugins of ``changed`` and of what a crash left untold."""
        if self.outcome.dry_run:
            return
        switching = replace(after, telling=changed | self.before.telling)
        self._keep(switching)
        with closing(_Told(self.tree, after, self.outcome)) as told:
            starting = told.of(self.found, switching.telling, ended=False)
            told.tell(starting, Effects.resuming)
            refused = self._settle(switching, attach or bool(self.before.telling))
            told.tell(starting, Effects.resumed)
            if not keep_effects:
                told.tell(told.of(self.found, switching.telling, ended=True), Effects.removed)
            told.finish()
        if finish and not (after.everything and refused):
            self._keep(replace(after, telling=frozenset()))

    def _settle(self, switching: Off, attach: bool) -> bool:
        """Bring every program to where it belongs; return whether something refuses."""
        if self.tree is None:
            return False
        settled = suspension.settle(self.tree, self.found.values(), switching, attach)
        self.outcome.failed |= bool(settled.refused)
        self.outcome.warnings += [*settled.gone, *settled.refused]
        return bool(settled.refused)

    def _keep(self, after: Off) -> None:
        """Write what is off. Where that can't be, everything goes off all the same."""
        try:
            record.keep(after)
        except OSError as error:
            if not after.everything:
                raise
            self.outcome.failed = True
            told = f"{error.filename} can't be written ({error.strerror}): later commands may attach again"
            self.outcome.warnings += [] if told in self.outcome.warnings else [told]


class _Told:
    """The plugins' Python sides, as far as they can be told: what can't be is a warning."""

    def __init__(self, tree: Pins | None, after: Off, outcome: Switched) -> None:
        self._tree = tree
        self._after = after
        self._outcome = outcome
        self._opened = ExitStack()
        self._sides: tuple[Catalog, Manager] | None = None

    def of(self, found: Mapping[Location, Running], names: Names, ended: bool) -> list[Effects]:
        """Return the stages of policies, as their plugins are told of them. Loads the plugins."""
        chosen = frozenset(name for name in names if self._after.silences(*name) == ended)
        if not chosen or self._tree is None:
            return []
        try:
            catalog, manager = self._sides or (
                Catalog.of_enabled(),
                Manager.of_enabled(report=lambda failure: None),
            )
            self._sides = catalog, manager
            made, untold = effects.of_running(self._tree, catalog, manager, found.values(), chosen)
        except (EmptcpError, pybpf.BpfError, OSError) as error:
            self._outcome.warnings.append(f"no plugin is told: {error}")
            return []
        for one in made:
            self._opened.callback(one.close)
        self._outcome.warnings += untold if ended else []
        return made

    def tell(self, stages: Sequence[Effects], occasion: Callable[[Effects], None]) -> None:
        """Tell of an occasion."""
        for one in stages:
            try:
                occasion(one)
            except (EmptcpError, pybpf.BpfError, OSError) as error:
                self._outcome.warnings.append(f"not every plugin is told: {error}")

    def close(self) -> None:
        """Close what the plugins were handed."""
        self._opened.close()

    def finish(self) -> None:
        """Bring sockets to what the plugins want of them; make warnings of what the plugins did not do."""
        if self._sides is None or self._tree is None:
            return
        self._outcome.warnings += map(str, self._sides[1].failures)
        try:
            sockets.run_everywhere(self._tree, suspended=True)
        except (EmptcpError, pybpf.BpfError, OSError) as error:
            self._outcome.warnings.append(f"not every socket is told: {error}")


def _policies(one: Running) -> Names:
    return frozenset((policy.table, policy.name) for policy in one.description.policies)


def _meant(table: str) -> Names:
    """Return the policies that a table's record names; none where it can't be read."""
    try:
        entry = tables.read(table)
        return (
            frozenset((table, policy.name) for policy in recorded(entry).policies) if entry else frozenset()
        )
    except EmptcpError:
        return frozenset()


def _check_switchable(one: Running, names: Names) -> None:
    about = one.description
    old = [policy for policy in about.policies if (policy.table, policy.name) in names and not policy.switch]
    if old:
        raise EmptcpError(
            f"the program at {about.hook} of {about.device} was made by an earlier emptcp and can't skip "
            f"policy {quoted(old[0].name)}",
            fix=f"Apply the file of table {quoted(old[0].table)} again, or run: emptcp off",
        )


def _done(action: str, one: Running, names: Names) -> Done:
    about = one.description
    policies = tuple("/".join(name) for name in sorted(names))
    return Done(action, about.device, about.hook, about.backend, "", policies, about.netns)
