# SPDX-License-Identifier: Apache-2.0
"""Which back-end a program gets on a device, and why: the order in which they are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from emptcp.errors import EmptcpError, did_you_mean
from emptcp.hooks.devices import Device

BACKENDS = ("auto", "xdp", "xdp-generic", "tc")
HOOKS = ("ingress", "egress")
# The kind of program that each back-end takes (emptcp.pybpf.kinds).
KINDS = {"xdp": "xdp", "xdp-generic": "xdp", "tc": "sched_cls"}


@dataclass(frozen=True)
class Choice:
    """A back-end to try, and the reason in words that ``list`` shows."""

    backend: str
    reason: str

    @property
    def kind(self) -> str:
        """The kind of program it takes."""
        return KINDS[self.backend]


@dataclass(frozen=True)
class Limit:
    """Something that works at some back-ends only: ``who`` in words, ``codes`` of ``xdp`` and ``tc``."""

    who: str
    codes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What ``list`` shows where it decides, and how a refusal begins."""
        return f"{self.who} works at {' and '.join(self.codes).upper()} only"

    def allows(self, backend: str) -> bool:
        """Return whether it works at a back-end."""
        return backend.removesuffix("-generic") in self.codes


# Its reason is what the driver says when it refuses.
_AFTER_XDP = Choice("tc", "")


def choose(device: Device, hook: str, backend: str = "auto", limits: Sequence[Limit] = ()) -> list[Choice]:
    """Return the back-ends to try, best first; generic XDP is among them only when it is asked for by name.

    :raises EmptcpError: no such back-end or hook, a device whose packets policies can't read, or none of the
        back-ends is one at which everything works.
    """
    _check(device, hook, backend)
    found = _candidates(device, hook, backend)
    for limit in limits:
        left = [choice for choice in found if limit.allows(choice.backend)]
        if not left:
            raise EmptcpError(
                f"{limit.sentence}, and on device '{device.name}' the policies of {hook} run by "
                f"'{found[0].backend}' ({found[0].reason})",
                fix=f'Write backend = "{limit.codes[0]}" in the policies of this device.',
            )
        if len(left) < len(found):
            left = [replace(choice, reason=limit.sentence) for choice in left]
        found = left
    return found


def _candidates(device: Device, hook: str, backend: str) -> list[Choice]:
    if hook == "egress":
        return [Choice("tc", "XDP does not see packets that leave")]
    if backend != "auto":
        return [Choice(backend, "asked for")]
    against = _against_native(device)
    if against:
        return [Choice("tc", against)]
    driver = device.driver or "it"
    return [
        Choice("xdp", f"{driver} runs it before the kernel has spent anything on the packet"),
        _AFTER_XDP,
    ]


def _check(device: Device, hook: str, backend: str) -> None:
    for what, word, known in (("back-end", backend, BACKENDS), ("packet hook", hook, HOOKS)):
        if word not in known:
            near = did_you_mean(word, known)
            raise EmptcpError(
                f"there is no {what} '{word}'", fix=near.capitalize() or f"Known: {', '.join(known)}."
            )
    if device.link == "other":
        raise EmptcpError(
            f"device '{device.name}' carries neither Ethernet nor plain IP, which are what policies can read"
        )


def _against_native(device: Device) -> str:
    """Return why native XDP is not even tried on a device; empty if it is."""
    if device.loopback:
        return "the loopback device has no native XDP"
    if device.link == "none":
        return "native XDP needs an Ethernet header, which this device does not have"
    if device.driver == "veth":
        return "native XDP on a veth switches segmentation offload off at its peer"
    if device.driver == "tun":
        return "a tap carries merged packets, which XDP does not see whole"
    if device.virtual and device.driver != "bond":
        return f"native XDP gains nothing on a virtual device ({device.driver})"
    return ""
