# SPDX-License-Identifier: Apache-2.0
"""Take a program off its device and put the very same one back: for `emptcp off` and `emptcp on`.

A link ends with its attachment, so the program gets a pin of its own first. Each step leaves pins that tell
how far it came::

    attached            link
                        link, program
    detached            link (of no device any more), program
                        program

Without links there is the pin of the program alone, and the device tells whether it is attached. Nothing
here needs a plugin or a file.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field

from emptcp import pybpf
from emptcp.chain import decide, sockets
from emptcp.chain.off import Off
from emptcp.chain.pins import LINK, PROGRAM, Pins
from emptcp.chain.placement import Site
from emptcp.chain.running import Running
from emptcp.errors import EmptcpError
from emptcp.hooks import attach as attachments
from emptcp.hooks.attach import Attached
from emptcp.pybpf import features


def attached(one: Running) -> bool:
    """Return whether a program is on its device."""
    if one.link is not None:
        return not one.detached
    return _without_link(one, decide.site_of(one)) is not None


def suspend(one: Running) -> None:
    """Detach a program that stays pinned; harmless where it is detached.

    Raises :class:`EmptcpError` or :class:`~emptcp.pybpf.BpfError` when the kernel refuses.
    """
    if one.link is None:
        here = _without_link(one, decide.site_of(one))
        if here is not None:
            here.detach()
        return
    _pin_program(one)
    if not one.detached:
        _end(one.link)
    (one.folder / LINK).unlink(missing_ok=True)


def resume(one: Running) -> None:
    """Attach a program again; harmless where it is attached.

    Raises :class:`Gone` when its device is not there any more, and other errors when that refuses it.
    """
    if attached(one):
        if one.link is not None:
            (one.folder / PROGRAM).unlink(missing_ok=True)
        return
    site, about = decide.site_of(one), one.description
    if site.device_gone:
        raise Gone(decide.why_lost(site), fix="Let go of it: emptcp doctor --repair")
    _pin_program(one)
    (one.folder / LINK).unlink(missing_ok=True)
    with closing(
        attachments.attach(site.namespace, site.device, about.hook, about.backend, one.program)
    ) as made:
        if made.link is not None:
            made.link.pin(one.folder / LINK)
            (one.folder / PROGRAM).unlink()


class Gone(EmptcpError):
    """A program can't be attached again because its device is not there any more."""


@dataclass
class Settled:
    """What stands in the way of what should be, a sentence each: devices that are gone, and refusals."""

    gone: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def settle(pins: Pins, found: Iterable[Running], off: Off, attach: bool) -> Settled:
    """Let every program skip what is off, and be detached while everything is.

    With ``attach`` those that should be on their devices and are not are put there.
    """
    settled = Settled()
    for one in found:
        about = one.description
        where = f"{about.hook} of {about.device}" + (f" in {about.netns}" if about.netns else "")
        try:
            one.switch(off.skips)
            if off.everything:
                suspend(one)
            elif attach:
                resume(one)
        except Gone as error:
            settled.gone.append(f"{where} stays without its program: {error}")
        except (EmptcpError, pybpf.BpfError, OSError) as error:
            settled.refused.append(f"{where}: {error}")
    try:
        if off.everything:
            sockets.suspend(pins)
        elif attach:
            sockets.resume(pins)
    except (EmptcpError, pybpf.BpfError, OSError) as error:
        settled.refused.append(f"socket companions: {error}")
    return settled


def _pin_program(one: Running) -> None:
    if not (one.folder / PROGRAM).exists():
        one.program.pin(one.folder / PROGRAM)


def _end(link: pybpf.Link) -> None:
    try:
        link.detach()
    except pybpf.BpfError as problem:
        if problem.errno != errno.ENOLINK:  # the device went meanwhile, and the attachment with it
            raise


def _without_link(one: Running, site: Site) -> Attached | None:
    """Return a program's attachment by netlink or a filter, if it is there.

    Where a crash came between a switch and its pin, another program than the pinned one has the place. Where
    the kernel has links, that is somebody else's.
    """
    if site.device_gone:
        return None
    about = one.description
    found = attachments.restore(site.namespace, site.device, about.hook, None)
    links = features.has("tcx" if about.backend == "tc" else "xdp_link")
    mine = found is not None and (found.program_id == one.program.id or not links)
    return found if mine else None
