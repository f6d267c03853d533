# SPDX-License-Identifier: Apache-2.0
"""What goes wrong below the policies, as sentences: the object, the rule, the fix."""

from __future__ import annotations

import errno as codes
import os

_MEANING = {
    codes.EPERM: "the kernel did not permit it",
    codes.EACCES: "the kernel refused access",
    codes.ENODEV: "there is no such device in this network namespace",
    codes.ENOENT: "there is no such object",
    codes.EEXIST: "something is already there",
    codes.EBUSY: "it is in use",
    codes.EINVAL: "the kernel does not accept these arguments",
    codes.E2BIG: "it is too large for this kernel",
    codes.ENOMEM: "the kernel has no memory for it",
    codes.ENOSPC: "there is no room left",
    codes.EOPNOTSUPP: "it is not supported here",
    codes.ENOTSUP: "it is not supported here",
    codes.ERANGE: "a size is out of the permitted range",
    codes.ESTALE: "its device or program is gone",
    codes.EMFILE: "this process has too many files open",
    codes.EROFS: "it is read-only",
}


# include/uapi/linux/capability.h: NET_ADMIN 12, SYS_ADMIN 21, PERFMON 38, BPF 39. Before 5.8 the last two
# are parts of SYS_ADMIN.
_NEEDED = 1 << 12 | 1 << 38 | 1 << 39
_ALMIGHTY = 1 << 12 | 1 << 21


class BpfError(Exception):
    """A refusal by libbpf or the kernel, in one sentence, then the fix.

    Has the attributes of :class:`emptcp.errors.EmptcpError` (``sentence``, ``fix``, ``where``) and the
    ``errno`` (positive, 0 when there is none). ``log`` is what libbpf said meanwhile.
    """

    def __init__(
        self, sentence: str, *, fix: str = "", where: str = "", errno: int = 0, log: str = ""
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.fix = fix
        self.where = where
        self.errno = errno
        self.log = log

    @property
    def full(self) -> bool:
        """Whether it is a map's refusal to take one more entry."""
        return self.errno in (codes.E2BIG, codes.ENOSPC)

    def __str__(self) -> str:
        head = f"{self.where}: {self.sentence}" if self.where else self.sentence
        return f"{head}\n{self.fix}" if self.fix else head


class MissingFeature(BpfError):
    """This kernel or this libbpf lacks what was asked for."""


def meaning(code: int) -> str:
    """Return an errno (of either sign) in words, with its name for those who search for it."""
    code = abs(code)
    words = _MEANING.get(code, os.strerror(code).lower())
    return f"{words} ({codes.errorcode.get(code, code)})"


def failed(what: str, code: int, *, fix: str = "", log: str = "") -> BpfError:
    """Return the error for ``what`` (an object and a verb) that ended with an errno of either sign."""
    return BpfError(f"{what}: {meaning(code)}", fix=fix or _fix(code), errno=abs(code), log=log)


def _fix(code: int) -> str:
    if abs(code) in (codes.EPERM, codes.EACCES) and not _has_rights():
        return "Run as root with its capabilities (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed)."
    return ""


def _has_rights() -> bool:
    """Whether this process has the capabilities; in a container, root may lack them."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)
    return effective & _NEEDED == _NEEDED or effective & _ALMIGHTY == _ALMIGHTY
