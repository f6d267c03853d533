# SPDX-License-Identifier: Apache-2.0
"""Run a packet at every place where a policy's stages work, and hold the places to one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from . import trial
from .trial import Place

if TYPE_CHECKING:
    from emptcp.chain.dryrun import Result, Runner

Policy = tuple[tuple[str, ...], str, tuple[str, ...], str]
"""The actors, ``when``, the hooks, the link layer."""

DROP_ALL = ("drop(unsafe=true)",)
"""What a policy without actors does: so the verdict tells whether a selector matched."""

Note = Callable[[Place, "Runner", bytes], None]


class Everywhere:
    """What the fixture ``run_packet`` gives.

    A policy is loaded once for each place and kept to the end of the test, so a later packet meets the state
    that earlier ones left (flow table, the plugin's maps). ``note`` is told of every run.
    """

    def __init__(self, note: Note | None = None) -> None:
        self._made = ExitStack()
        self._loaded: dict[Policy, dict[Place, Runner]] = {}
        self._note = note

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._made.close()

    def __call__(
        self,
        packet: bytes,
        *do: str,
        when: str = "",
        hooks: Sequence[str] = (),
        link: str = "ethernet",
    ) -> Result:
        """Return what becomes of a packet: ``verdict``, ``data``, ``matched``, ``reason``, ``counts``.

        :param packet: from its first link byte; with ``link="none"`` from the IP header.
        :param do: the actors as a policy file writes them; without one what is selected is dropped.
        :param when: selectors, as a policy file writes them.
        :param hooks: where to run it; by default on every hook on which all stages work.
        :raises AssertionError: two places answer differently.
        :raises EmptcpError: there is no such stage, its values are refused, or no place is left.
        """
        runners = self._runners((do or DROP_ALL, when, tuple(hooks), link))
        answers = {place: self._run(place, runner, packet) for place, runner in runners.items()}
        first, answer = next(iter(answers.items()))
        for place, other in answers.items():
            assert other == answer, f"{place}: {other}\n{first}: {answer}"
        return answer

    def _run(self, place: Place, runner: Runner, packet: bytes) -> Result:
        found = runner.run(packet)
        if self._note:
            self._note(place, runner, packet)
        return replace(found, duration_ns=0)

    def _runners(self, policy: Policy) -> dict[Place, Runner]:
        if policy not in self._loaded:
            self._loaded[policy] = dict(self._load(*policy))
        return self._loaded[policy]

    def _load(
        self, do: tuple[str, ...], when: str, hooks: tuple[str, ...], link: str
    ) -> list[tuple[Place, Runner]]:
        from emptcp.errors import EmptcpError

        found = []
        for hook in hooks or trial.hooks(do, when):
            policy = trial.bound(do, when, hook)
            for place in trial.places(policy, hook):
                found.append((place, self._made.enter_context(trial.runner(policy, place, link))))
        if not found:
            raise EmptcpError(
                f"no hook is left on which {' and '.join(filter(None, (when, *do)))} work together",
                fix="Compare 'hooks' and 'backends' of their manifests.",
            )
        return found
