# SPDX-License-Identifier: Apache-2.0
"""The guest's first process: set the machine up, run the command it was given, tell how it ended, power off.

The command stands in ``/command``, one word a line. Everything goes to the serial port that the only argument
names, because the kernel's own messages have the first; the last line is ``guest: exit N``.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)
FINIT_MODULE = {"x86_64": 313, "aarch64": 273}[os.uname().machine]
POWER_OFF = 0x4321FEDC
ENVIRONMENT = {
    "HOME": "/root",
    "USER": "root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}
MOUNTS = (
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
)


def main() -> None:
    """Do everything; never return."""
    try:
        mount_all()
        to_serial(sys.argv[1])
        print(f"guest: Linux {os.uname().release}, up after {time.monotonic():.1f} s", flush=True)
        load_modules("/modules")
        code = run(words("/command"))
    except BaseException:
        traceback.print_exc()
        code = 99
    print(f"guest: exit {code}", flush=True)
    time.sleep(0.2)
    LIBC.sync()
    LIBC.reboot(POWER_OFF)


def mount_all() -> None:
    """Mount what a running system has mounted."""
    for kind, where in MOUNTS:
        os.makedirs(where, exist_ok=True)
        checked(LIBC.mount(kind.encode(), where.encode(), kind.encode(), 0, None), f"mount {where}")


def to_serial(path: str) -> None:
    """Send standard output and error to a serial port, newlines as they are."""
    import tty

    port = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(port)
    for descriptor in (1, 2):
        os.dup2(port, descriptor)


def load_modules(folder: str) -> None:
    """Load every module of a folder, in the order of the names."""
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            code = LIBC.syscall(FINIT_MODULE, file.fileno(), b"", 0)
        checked(code, f"load {name}")


def words(path: str) -> list[str]:
    """Return the words of the command: first the folder to run it in."""
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def run(command: list[str]) -> int:
    """Run a command in the folder that its first word names, as a child; return how it ended."""
    folder, *rest = command
    os.environ.update(
        HOME="/root", USER="root", LANG="C.UTF-8", TERM="dumb", PATH="/usr/sbin:/usr/bin:/sbin:/bin"
    )
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.execv(rest[0], rest)
    return reap(child)


def reap(child: int) -> int:
    """Wait for the child, and for all orphans that end before it."""
    while True:
        ended, status = os.wait()
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def checked(code: int, what: str) -> None:
    """Raise OSError when a call of libc failed."""
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
