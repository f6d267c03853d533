# SPDX-License-Identifier: Apache-2.0
"""Plugins' maps that a change makes anew, in the place of pinned ones that are made otherwise.

An upgraded plugin may lay out its maps otherwise than the release that runs. What the old map holds is
lost then, so an operator has to ask for it (``emptcp apply --new-maps``), and every program that uses the old
map has to be replaced by the same change: two programs that count into two maps would each be half right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from emptcp import pybpf
from emptcp.chain.pins import Location, Pins


class Replacing:
    """The maps of one change. Nothing is pinned, and no pin goes, before :meth:`carry_out`."""

    def __init__(self, pins: Pins, leaving: Iterable[Location], asked: bool) -> None:
        """``leaving`` is where programs are replaced or detached."""
        self._pins = pins
        self._leaving = frozenset(leaving)
        self._asked = asked
        self._made: dict[Path, pybpf.Map | None] = {}
        self._opened = ExitStack()

    def close(self) -> None:
        """Close the maps; those that are pinned stay."""
        self._opened.close()

    def users(self, plugin: str) -> list[str]:
        """Return the tables that use maps of a plugin in programs which stay."""
        from emptcp.chain import running

        with running.everything(self._pins) as found:
            staying = {location: one for location, one in found.items() if location not in self._leaving}
            return running.tables_using(staying, plugin)

    def start(self, path: Path, plugin: str) -> bool:
        """Tell whether the map that is pinned there may be made anew, and note that it will be."""
        if not self._asked or self.users(plugin):
            return False
        self._made[path] = None
        return True

    def __contains__(self, path: Path) -> bool:
        return path in self._made

    def made(self, path: Path) -> pybpf.Map | None:
        """Return the new map, if it is made already."""
        return self._made[path]

    def keep(self, path: Path, made: pybpf.Map) -> None:
        """Keep the new map until it is pinned."""
        self._made[path] = self._opened.enter_context(made.duplicate())

    def carry_out(self) -> Callable[[], None]:
        """Pin the new maps; return what takes that back."""
        undo = ExitStack()
        for path, made in self._made.items():
            if made is not None:
                undo.callback(_pin, path, self._opened.enter_context(pybpf.Map.from_pin(path)))
                _pin(path, made)
        return undo.close


def _pin(path: Path, one: pybpf.Map) -> None:
    path.unlink(missing_ok=True)
    one.pin(path)
