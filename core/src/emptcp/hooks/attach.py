# SPDX-License-Identifier: Apache-2.0
"""Attach a program to a device's hook, switch it between two packets, take it away.

Links where the kernel has them (XDP 5.9, TCX 6.6), which end with their last pin; else netlink for XDP and
a clsact filter for TC, which stay until they are taken away. Programs of others are never touched.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from emptcp.errors import EmptcpError
from emptcp.hooks import clsact, devices, namespaces, refusals, xdp_netlink
from emptcp.hooks.choice import Choice, Limit, choose
from emptcp.hooks.devices import Device
from emptcp.hooks.namespaces import Namespace
from emptcp.pybpf import BpfError, Link, Program, features, load_program
from emptcp.pybpf.assembly import answer

_TCX_NEXT = -1

OURS = "emptcp"  # what the names of emptcp's programs begin with

# A program, or what loads one of the kind that a back-end takes ("xdp", "sched_cls").
Supply = Program | Callable[[str], Program]


@dataclass(frozen=True)
class Attached:
    """A program on a device's hook.

    ``backend`` is what is really used (``xdp``, ``xdp-generic``, ``tc``) and ``reason`` why. ``mechanism``
    is ``xdp link``, ``tcx``, ``netlink`` or ``clsact``; ``link`` is None for the last two, whose
    attachments outlive the process without a pin.
    """

    namespace: Namespace
    device: Device
    hook: str
    backend: str
    reason: str
    mechanism: str
    program_id: int
    link: Link | None = None

    @property
    def native(self) -> bool:
        """Whether it is XDP in the driver."""
        return self.backend == "xdp"

    def close(self) -> None:
        """Give up the link; what is pinned, or needs none, stays attached."""
        if self.link is not None:
            self.link.close()

    def gone(self) -> bool:
        """Return whether it was taken away, or its device went."""
        if self.link is not None:
            return self.link.closed or self.link.info.ifindex == 0
        return not _on_device(self)

    def switch(self, program: Program) -> Attached:
        """Put another program in this one's place, between two packets.

        :raises EmptcpError: the device is gone, or something else is in its place.
        """
        namespaces.call(self.namespace, lambda: _guarded(self.device, lambda: _switch(self, program)))
        return dataclasses.replace(self, program_id=program.id)

    def detach(self) -> None:
        """Take the program away; harmless when it is gone already.

        :raises EmptcpError: the kernel refuses.
        """
        namespaces.call(self.namespace, lambda: _guarded(self.device, lambda: _detach(self)))


class _Refused(Exception):
    """A back-end was refused, and why: another one may be tried."""


def attach(
    namespace: Namespace,
    device: Device,
    hook: str,
    backend: str,
    program: Supply,
    replace: Attached | None = None,
    put_back: Callable[[Attached], None] | None = None,
    limits: Sequence[Limit] = (),
) -> Attached:
    """Attach a program, or put it in the place of one that is attached.

    :param hook: ``ingress`` or ``egress``.
    :param backend: ``auto``, ``xdp`` (in the driver), ``xdp-generic`` or ``tc``.
    :param program: loaded already, or a function that loads one of a kind: ``auto`` asks it for "xdp" first
        and for "sched_cls" when the driver refuses.
    :param replace: what is attached now. On the same back-end it is switched between two packets; else the
        new one is attached before the old one goes, or after it where both are XDP.
    :param put_back: is given what is attached in the end where the old one had gone, the new one was refused,
        and the old program was attached again; its link is another one than before.
    :param limits: what the program has that works at some back-ends only.
    :raises EmptcpError: every back-end in question refuses; with the driver's own sentence where there is
        one.
    """
    choices = [choice for choice in choose(device, hook, backend, limits) if _takes(program, choice)]
    if not choices:
        raise EmptcpError(f"this program's kind does not fit the back-end '{backend}' at {hook}")
    if replace is not None and not replace.gone():
        kept = next((choice for choice in choices if choice.backend == replace.backend), None)
        if kept is not None:
            return replace.switch(_loaded(program, kept))
        if _exclude_each_other(replace, choices[0]):
            return _move(replace, choices, program, put_back)
        made = _first_taken(namespace, device, hook, choices, program)
        replace.detach()
        return made
    return _first_taken(namespace, device, hook, choices, program)


def reserve(
    namespace: Namespace, device: Device, hook: str, backend: str, limits: Sequence[Limit] = ()
) -> Attached | None:
    """Take a place where a program is to be attached later, with one that lets everything go on.

    The kernel waits for all CPUs when TCX gets its program, and not when that is switched. Give what this
    returns to :func:`attach` as ``replace``; closed before, or left by a process that ends, it is gone.
    ``None`` where the first choice is no TCX, or is refused: :func:`attach` says why then.
    """
    choice = choose(device, hook, backend, limits)[0]
    if choice.backend != "tc" or not features.has("tcx"):
        return None
    plan = Attached(namespace, device, hook, choice.backend, choice.reason, "", 0)
    try:
        with load_program("sched_cls", answer(_TCX_NEXT), name=f"{OURS}_reserved") as program:
            return namespaces.call(namespace, partial(_attach, plan, program))
    except (_Refused, BpfError, EmptcpError):
        return None


def restore(
    namespace: Namespace, device: Device, hook: str, link: Link | None, reason: str = ""
) -> Attached | None:
    """Return what emptcp attached earlier: by its link, or without one by looking on the device.

    None if nothing.
    """
    if link is not None:
        return _of_link(namespace, device, hook, link, reason)
    return next(
        iter(namespaces.call(namespace, lambda: _without_links(namespace, device, hook, reason))), None
    )


def _takes(program: Supply, choice: Choice) -> bool:
    return not isinstance(program, Program) or program.info.kind == choice.kind


def _loaded(program: Supply, choice: Choice) -> Program:
    return program if isinstance(program, Program) else program(choice.kind)


def _first_taken(
    namespace: Namespace, device: Device, hook: str, choices: list[Choice], program: Supply
) -> Attached:
    """Attach by the first back-end that takes it; why the one before did not becomes the reason."""
    refusal = ""
    for choice in choices:
        loaded = _loaded(program, choice)
        reason = choice.reason or f"native XDP is refused: {refusal}"
        plan = Attached(namespace, device, hook, choice.backend, reason, "", loaded.id)
        try:
            return namespaces.call(namespace, partial(_attach, plan, loaded))
        except _Refused as problem:
            refusal = str(problem)
    raise EmptcpError(
        f"device '{device.name}' refuses {_spoken(choices[-1].backend)} at {hook}: {refusal}",
        fix='Use backend = "auto" or "tc".' if choices[-1].backend != "tc" else "",
    )


def _spoken(backend: str) -> str:
    return {"xdp": "native XDP", "xdp-generic": "generic XDP", "tc": "a TC program"}[backend]


def _exclude_each_other(old: Attached, new: Choice) -> bool:
    """Return whether the old one must go first: the kernel has a device's XDP in the driver or generic."""
    return "tc" not in (old.backend, new.backend)


def _move(
    old: Attached, choices: list[Choice], program: Supply, put_back: Callable[[Attached], None] | None
) -> Attached:
    with Program.from_id(old.program_id) as earlier:
        old.detach()
        try:
            return _first_taken(old.namespace, old.device, old.hook, choices, program)
        except BaseException:
            again = _again(old, earlier)
            if put_back is not None:
                put_back(again)
                again.close()
            raise


def _again(old: Attached, program: Program) -> Attached:
    """Attach what was detached, as it was."""
    try:
        return namespaces.call(old.namespace, lambda: _attach(dataclasses.replace(old, link=None), program))
    except _Refused as problem:
        where = f"{old.hook} of device '{old.device.name}'"
        raise EmptcpError(
            f"{where} has no program now: the one of before can't be put back: {problem}",
            fix="Apply the policy file again.",
        ) from None


def _attach(plan: Attached, program: Program) -> Attached:
    """Attach in this thread's namespace."""
    try:
        if plan.backend == "tc":
            return _attach_tc(plan, program)
        return _attach_xdp(plan, program)
    except BpfError as problem:
        raise _Refused(problem.sentence) from None


def _attach_tc(plan: Attached, program: Program) -> Attached:
    ifindex = plan.device.ifindex
    if not features.has("tcx"):
        clsact.put(ifindex, plan.hook, program.fd)
        return dataclasses.replace(plan, mechanism="clsact")
    # Before others: a program that ends the walk would hide the packet from the policies.
    link = Link.attach_tcx(program, ifindex, plan.hook == "ingress", first=True)
    return dataclasses.replace(plan, mechanism="tcx", link=link)


def _attach_xdp(plan: Attached, program: Program) -> Attached:
    ifindex = plan.device.ifindex
    if not features.has("xdp_link"):
        try:
            _put_without_link(plan, program)
        except BpfError as problem:
            raise _Refused(_occupied(plan, problem) or problem.sentence) from None
        return dataclasses.replace(plan, mechanism="netlink")
    with refusals.listening() as heard:
        try:
            link = Link.attach_xdp(program, ifindex, plan.native)
        except BpfError as problem:
            raise _Refused(_occupied(plan, problem) or heard() or problem.sentence) from None
    return dataclasses.replace(plan, mechanism="xdp link", link=link)


def _put_without_link(plan: Attached, program: Program) -> None:
    """Attach by netlink, in the place of a program of emptcp's that nobody knows of any more.

    Its pin is gone: a crash came before it was made, or the BPF file system was unmounted.
    """
    here = devices.find(plan.namespace, plan.device.name)
    for stray in _without_links(plan.namespace, here, plan.hook):
        if stray.mechanism == "netlink":
            with Program.from_id(stray.program_id) as old:
                if stray.native == plan.native:
                    xdp_netlink.put(plan.device.ifindex, program, native=plan.native, old=old)
                    return
                xdp_netlink.take(plan.device.ifindex, old, native=stray.native)
    xdp_netlink.put(plan.device.ifindex, program, native=plan.native)


def _occupied(plan: Attached, problem: BpfError) -> str:
    """Return whose program is in the way, if that is the problem."""
    if problem.errno not in (errno.EBUSY, errno.EEXIST):
        return ""
    here = devices.find(plan.namespace, plan.device.name).xdp
    names = [f"'{_name(number)}' (id {number}, {mode})" for mode, number in here]
    return f"the XDP program {', '.join(names)} is there" if names else ""


def _name(number: int) -> str:
    try:
        with Program.from_id(number) as program:
            return program.info.name
    except BpfError:
        return "?"


def _switch(old: Attached, program: Program) -> None:
    if old.link is not None:
        old.link.update(program)
    elif old.mechanism == "clsact":
        clsact.put(old.device.ifindex, old.hook, program.fd)
    else:
        with Program.from_id(old.program_id) as expected:
            xdp_netlink.put(old.device.ifindex, program, native=old.native, old=expected)


def _detach(old: Attached) -> None:
    if old.link is not None:
        _end(old.link)
    elif old.mechanism == "clsact":
        clsact.take(old.device.ifindex, old.hook)
    elif _on_device(old):
        with Program.from_id(old.program_id) as expected:
            xdp_netlink.take(old.device.ifindex, expected, native=old.native)


def _end(link: Link) -> None:
    if link.closed:
        return
    try:
        link.detach()
    except BpfError as problem:
        # The device went, and the attachment with it.
        if problem.errno != errno.ENOLINK:
            raise
    link.close()


def _guarded(device: Device, action: Callable[[], None]) -> None:
    try:
        action()
    except BpfError as problem:
        raise EmptcpError(f"device '{device.name}': {problem.sentence}", fix=problem.fix) from None


def _of_link(namespace: Namespace, device: Device, hook: str, link: Link, reason: str) -> Attached:
    info = link.info
    if info.kind == "tcx":
        return Attached(namespace, device, hook, "tc", reason, "tcx", info.program_id, link)
    generic = ("generic", info.program_id) in device.xdp
    backend = "xdp-generic" if generic else "xdp"
    return Attached(namespace, device, hook, backend, reason, "xdp link", info.program_id, link)


def _without_links(namespace: Namespace, device: Device, hook: str, reason: str = "") -> list[Attached]:
    """Return emptcp's attachments on a hook that need no link, by looking on the device."""
    here = Attached(namespace, device, hook, "tc", reason, "clsact", 0)
    found = [
        dataclasses.replace(here, program_id=entry.program_id)
        for entry in clsact.filters(device.ifindex, hook)
        if entry.ours
    ]
    backends = {"native": "xdp", "generic": "xdp-generic"}
    return found + [
        dataclasses.replace(here, backend=backends[mode], mechanism="netlink", program_id=number)
        for mode, number in (device.xdp if hook == "ingress" else ())
        if mode in backends and _name(number).startswith(OURS)
    ]


def _on_device(old: Attached) -> bool:
    """Return whether an attachment without a link is still there."""
    here = [device for device in devices.list_devices(old.namespace) if device.ifindex == old.device.ifindex]
    found = (
        namespaces.call(old.namespace, lambda: _without_links(old.namespace, here[0], old.hook))
        if here
        else []
    )
    return any((entry.mechanism, entry.program_id) == (old.mechanism, old.program_id) for entry in found)
