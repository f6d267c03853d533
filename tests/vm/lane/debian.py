# SPDX-License-Identifier: Apache-2.0
"""Get a cloud kernel of Debian's: by apt, in a state of its own, from the mirror this machine is set to.

Nothing of the system's apt is changed. What was unpacked once is used again, until its folder is removed.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lane.refusal import Refusal
from lane.releases import Release

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
META_PACKAGE = "linux-image-cloud-amd64"
# Since 7.x the kernel and its modules are packages of their own, which the image's depends on.
PARTS = re.compile(r"linux-(?:image|binary|modules)-\d\S*-cloud-amd64")
# Seconds for one run of apt.
PATIENCE = 240


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: its version, the image to boot and the folder of its modules."""

    version: str
    image: Path
    modules: Path


def kernel(release: Release, folder: Path) -> Kernel:
    """Return the release's kernel, downloaded into ``folder`` unless it is there.

    Raises :class:`Refusal` when it can't be got.
    """
    unpacked = folder / "kernel"
    if not unpacked.is_dir():
        _unpack(_download(release, folder), unpacked)
    return _found(unpacked)


def _found(unpacked: Path) -> Kernel:
    """Return where the packages have put things: in /boot and /lib, since 7.x all in /usr/lib."""
    modules = next(
        path for prefix in ("lib", "usr/lib") for path in (unpacked / prefix / "modules").glob("*")
    )
    images = (unpacked / "boot" / f"vmlinuz-{modules.name}", modules / "vmlinuz")
    return Kernel(modules.name, next(image for image in images if image.exists()), modules)


def _unpack(packages: list[Path], target: Path) -> None:
    """Unpack all packages, then give the folder its name: an interrupted one is not taken for whole."""
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for package in packages:
        _run("dpkg-deb", "--extract", str(package), str(partial))
        package.unlink()
    partial.rename(target)


def _download(release: Release, folder: Path) -> list[Path]:
    apt = _Apt(folder / "apt", release.suite)
    apt.run("apt-get", "update", cwd=folder)
    wanted = sorted(_parts(apt, META_PACKAGE))
    if not wanted:
        raise Refusal(f"the mirror has no {META_PACKAGE} in {release.suite}")
    apt.run("apt-get", "download", *wanted, cwd=folder)
    return sorted(folder.glob("linux-*.deb"))


def _parts(apt: _Apt, package: str) -> set[str]:
    """Return the packages that make up the kernel which ``package`` stands for."""
    shown = apt.run("apt-cache", "depends", "--important", package)
    direct = set(PARTS.findall(shown)) - {package}
    return direct.union(*(_parts(apt, name) for name in direct))


class _Apt:
    """apt with one suite of the machine's Debian mirror, in a folder of its own."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.suite = suite
        for made in ("lists/partial", "archives/partial"):
            (folder / made).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        (folder / "sources.list").write_text(f"deb {signed}{_mirror()} {suite} main\n", encoding="utf-8")
        settings = {
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder,
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Acquire::Languages": "none",
            "Acquire::Retries": 0,
            # apt's own user could not write into a folder of ours, and would warn about it.
            "APT::Sandbox::User": "root",
        }
        self.options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def run(self, tool: str, *words: str, cwd: Path | None = None) -> str:
        try:
            return _run(tool, *self.options, "-qq", *words, cwd=cwd)
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[:1]
            raise Refusal(f"apt can't get the kernel from Debian's {self.suite}: {' '.join(said)}") from None


def _mirror() -> str:
    """Return the address this machine has for its own Debian release.

    Found by the release's name, because without downloaded lists apt knows no origins.
    """
    names = {platform.freedesktop_os_release().get("VERSION_CODENAME", ""), "stable"}
    shown = _run("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE)")
    for name, component, site in _rows(shown):
        if component == "main" and name in names:
            return site
    raise Refusal("no mirror of Debian's is among this machine's apt sources")


def _rows(shown: str) -> Iterator[list[str]]:
    return (line.split() for line in shown.splitlines() if len(line.split()) == 3)


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=PATIENCE)
    except FileNotFoundError:
        raise Refusal(f"{command[0]} is missing: kernels are got as Debian packages") from None
    return done.stdout
