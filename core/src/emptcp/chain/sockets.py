# SPDX-License-Identifier: Apache-2.0
"""Socket companions (``emptcp/socket.h``): programs that bring sockets to what actors want of their subflows.

For each namespace with an actor that has one, the companion is attached to the root cgroup, where it hears of
sockets of that namespace, and pinned beside an iterator that runs it over the sockets that are there. The
pins' names carry plugin, companion and a digest of the object: a new release is another companion, and takes
over before the old one goes. Which of them are needed is what running programs say (``Description.sockets``).
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from emptcp import pybpf
from emptcp.chain import lending, states
from emptcp.chain.pins import Pins
from emptcp.chain.plan import BoundPolicy, FragmentRef, companions_for
from emptcp.chain.shared import PinnedMaps
from emptcp.chain.stores import Stores
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces, sock_ops
from emptcp.hooks.namespaces import Namespace
from emptcp.pybpf import features

_EVENTS, _ITERATOR = "events", "iterator"
_DETACHED = "detached_events"

# struct emptcp_socket_place
_PLACE = struct.Struct("=QI4x")
_SECTION = ".rodata.emptcp"

PATIENCE, AGAIN = 1.5, 0.02
"""Seconds: how long a command waits for companions that ask to be run again, and how soon it does."""

_NEEDED = ("sock_ops", "netns_cookie", "bpf_iter_setsockopt")


def missing() -> str:
    """Return why socket companions can't be used on this kernel, empty when they can."""
    return next(filter(None, map(features.reason, _NEEDED)), "")


def wanted(policies: Iterable[BoundPolicy]) -> tuple[FragmentRef, ...]:
    """Return the socket companions that the actors of some policies have."""
    return companions_for("socket", policies)


def name(companion: FragmentRef) -> str:
    """Return what a companion of this very object is called in descriptions and pins."""
    digest = hashlib.sha256(Path(companion.object).read_bytes()).hexdigest()
    return f"{companion.plugin}-{companion.name}-{digest[:8]}"


def attach(pins: Pins, namespace: Namespace, companions: Sequence[FragmentRef]) -> ExitStack:
    """Attach those that are not there yet; closing what is returned takes them away again.

    Raises :class:`EmptcpError` when the kernel refuses; then nothing was attached.
    """
    with ExitStack() as undo:
        for companion in companions if not missing() else ():
            folder = pins.sockets(namespace.cookie) / name(companion)
            if not (folder / _ITERATOR).exists():
                undo.callback(_remove, folder)
                _attach(pins, namespace, companion, folder)
        return undo.pop_all()


def suspend(pins: Pins) -> None:
    """Detach all companions and keep them pinned; harmless where they are detached."""
    for folder in _folders(pins):
        if not (folder / _EVENTS).exists():
            continue
        with pybpf.Link.from_pin(folder / _EVENTS) as link:
            if not (folder / _DETACHED).exists():
                with pybpf.Program.from_id(link.info.program_id) as program:
                    program.pin(folder / _DETACHED)
            link.detach()
        (folder / _EVENTS).unlink()


def resume(pins: Pins) -> None:
    """Attach all companions again; harmless where they are attached."""
    for folder in _folders(pins):
        if not (folder / _DETACHED).exists():
            continue
        # A link that is pinned beside it was detached and not unpinned yet, or is attached again: a new one
        # serves in both cases.
        with pybpf.Program.from_pin(folder / _DETACHED) as program, sock_ops.attach(program) as link:
            (folder / _EVENTS).unlink(missing_ok=True)
            link.pin(folder / _EVENTS)
        (folder / _DETACHED).unlink()


def _folders(pins: Pins) -> list[Path]:
    return sorted(folder for cookie in pins.with_sockets() for folder in pins.sockets(cookie).iterdir())


def run(pins: Pins, namespace: Namespace, *, suspended: bool = False) -> bool:
    """Run a namespace's companions over all its sockets; with ``suspended`` also those that are detached.

    Return whether one of them asked to be run again (``emptcp_again``).
    """
    again = False
    for path in sorted(pins.sockets(namespace.cookie).glob(f"*/{_ITERATOR}")):
        if suspended or path.with_name(_EVENTS).exists():
            with pybpf.Link.from_pin(path) as link:
                again |= bool(namespaces.call(namespace, link.read))
    return again


def run_until_done(pins: Pins) -> None:
    """Run the companions of every namespace, and again while one of them asks for that, for 1.5 s at most."""
    deadline = time.monotonic() + PATIENCE
    while run_everywhere(pins) and time.monotonic() < deadline:
        time.sleep(AGAIN)


def run_everywhere(pins: Pins, *, suspended: bool = False) -> bool:
    """Run the companions of every namespace that is there; see :func:`run`."""
    again = False
    for cookie in pins.with_sockets():
        try:
            namespace = namespaces.by_cookie(cookie)
        except EmptcpError:  # it went, and its sockets with it
            continue
        again |= run(pins, namespace, suspended=suspended)
    return again


def prune(pins: Pins, needed: Collection[tuple[int, str]]) -> None:
    """Take away the companions that are not needed: what is, is told by a namespace's cookie and a name."""
    for cookie in pins.with_sockets():
        for folder in sorted(pins.sockets(cookie).iterdir()):
            if (cookie, folder.name) not in needed:
                _remove(folder)


def _attach(pins: Pins, namespace: Namespace, companion: FragmentRef, folder: Path) -> None:
    place = states.offsets(states.known(pins, namespace.cookie)).get(companion.plugin)
    if place is None:
        raise EmptcpError(
            f"socket companion '{companion.name}' of plugin '{companion.plugin}' has no state to read",
            fix="Its actor has to keep one per subflow: EMPTCP_ACTOR_STATE.",
        )
    events, iterator = f"{companion.name}__ops", f"{companion.name}__iter"
    _remove(folder)  # of a command that was killed in the middle
    pins.make(folder)
    with ExitStack() as opened:
        stores = opened.enter_context(closing(Stores(pins)))
        maps = opened.enter_context(closing(PinnedMaps(pins, namespace.cookie, stores)))
        loaded = opened.enter_context(
            lending.opened(
                maps,
                companion,
                companion.object,
                lambda existing, borrowed: pybpf.load_object(
                    companion.object,
                    dict(_core_maps(companion.object, maps)),
                    existing=existing,
                    borrowed=borrowed,
                    programs=(events, iterator),
                    constants={_SECTION: _PLACE.pack(namespace.cookie, place)},
                ),
            )
        )
        opened.enter_context(sock_ops.attach(loaded.programs[events])).pin(folder / _EVENTS)
        # Pinned last: a companion without its iterator was not attached to the end.
        opened.enter_context(pybpf.Link.attach_iter(loaded.programs[iterator])).pin(folder / _ITERATOR)


def _core_maps(path: str, maps: PinnedMaps) -> Iterator[tuple[str, pybpf.Map]]:
    names = pybpf.ObjectSpec.read(path).maps
    for shared, make in maps.cores().items():
        if shared in names:
            yield shared, make()


def _remove(folder: Path) -> None:
    for pin in sorted(folder.glob("*"), reverse=True):
        pin.unlink()
    if folder.is_dir():
        folder.rmdir()
