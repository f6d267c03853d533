# SPDX-License-Identifier: Apache-2.0
"""Load the programs that decisions need, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from emptcp.chain import attachment, states
from emptcp.chain import program as programs
from emptcp.chain.decide import ATTACH, SWITCH, Decision
from emptcp.chain.objects import Objects
from emptcp.chain.pins import Pins
from emptcp.chain.plan import FragmentRef
from emptcp.chain.replacing import Replacing
from emptcp.chain.shared import PinnedMaps, PrivateMaps, SharedMaps
from emptcp.chain.stores import Stores


class Loader:
    """Loads what the decisions need, with one set of opened objects per namespace.

    Without a pin tree everything is loaded over private maps: a trial that leaves nothing. ``off`` tells of
    each policy, by table and name, whether programs are to skip it.
    """

    def __init__(
        self,
        tree: Pins | None,
        opened: ExitStack,
        off: Callable[[str, str], bool],
        replacing: Replacing | None = None,
    ) -> None:
        self._pins = tree
        self._replacing = replacing
        self._off = off
        self._opened = opened
        self._objects: dict[int, Objects] = {}
        self._begun: list[Future[programs.Loaded]] = []
        self.stores = opened.enter_context(closing(Stores(tree))) if tree is not None else None

    @contextmanager
    def loading(self) -> Iterator[Executor]:
        """Prepare decisions in this block; behind it their programs are loaded.

        The kernel verifies them in threads, beside what else the block does. Raises the first refusal.
        """
        with ThreadPoolExecutor(thread_name_prefix="load") as self._threads:
            yield self._threads
        for begun in self._begun:
            begun.result()

    def prepare(self, decision: Decision) -> None:
        """Begin to load the decision's program, if it needs one, for the back-end that is tried first."""
        decision.load = self._load
        if decision.action in (ATTACH, SWITCH) and decision.place is not None:
            if self._pins is not None and decision.action == ATTACH and not decision.suspended:
                self._threads.submit(self._reserve, decision)
            self._begun.append(self._threads.submit(self._finish, decision, self._prepare(decision)))

    def _load(self, decision: Decision, code: str) -> programs.Loaded:
        """Load a decision's program for a back-end's code, unless that was done before."""
        assert decision.place is not None
        if decision.loaded is not None and decision.place.code == code:
            return decision.loaded
        if decision.place.code != code:
            decision.place = replace(decision.place, backend=code)
        return self._finish(decision, self._prepare(decision))

    def _prepare(self, decision: Decision) -> programs.Prepared:
        assert decision.plan is not None
        assert decision.place is not None
        cookie = decision.location.cookie
        slots = states.offsets(self._places(cookie, decision.plan.fragments))
        previous = decision.before.previous() if decision.before is not None else None
        return programs.prepare(
            decision.plan, decision.policies, decision.place, self._of(cookie), slots, previous, self._off
        )

    def _finish(self, decision: Decision, prepared: programs.Prepared) -> programs.Loaded:
        made = decision.loaded = prepared.load()
        self._opened.callback(made.close)
        return made

    def _reserve(self, decision: Decision) -> None:
        attachment.reserve(decision)
        if decision.reserved is not None:
            self._opened.callback(decision.reserved.close)

    def _places(self, cookie: int, fragments: Sequence[FragmentRef]) -> dict[str, tuple[int, int]]:
        if self._pins is None:
            return states.allocate(fragments, {})
        return states.keep(self._pins, cookie, fragments)

    def _of(self, cookie: int) -> Objects:
        if cookie not in self._objects:
            self._objects[cookie] = self._opened.enter_context(Objects(self._shared(cookie)))
        return self._objects[cookie]

    def _shared(self, cookie: int) -> SharedMaps:
        if self._pins is None or self.stores is None:
            return self._opened.enter_context(closing(PrivateMaps()))
        maps = PinnedMaps(self._pins, cookie, self.stores, self._replacing)
        return self._opened.enter_context(closing(maps))
