# SPDX-License-Identifier: Apache-2.0
"""Get a cloud kernel of Debian's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lane.apt import Apt
from lane.refusal import Refusal
from lane.releases import Release


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
        apt = Apt(folder / "apt", release.suite, release.architecture)
        _download(apt)
        apt.unpack(unpacked)
    return _found(unpacked)


def _found(unpacked: Path) -> Kernel:
    """Return where the packages have put things: in /boot and /lib, since 7.x all in /usr/lib."""
    modules = next(
        path for prefix in ("lib", "usr/lib") for path in (unpacked / prefix / "modules").glob("*")
    )
    images = (unpacked / "boot" / f"vmlinuz-{modules.name}", modules / "vmlinuz")
    return Kernel(modules.name, next(image for image in images if image.exists()), modules)


def _download(apt: Apt) -> None:
    flavour = f"cloud-{apt.architecture.debian}"
    # Since 7.x the kernel and its modules are packages of their own, which the image's depends on.
    parts = re.compile(rf"linux-(?:image|binary|modules)-\d\S*-{flavour}")
    wanted = sorted(_parts(apt, f"linux-image-{flavour}", parts))
    if not wanted:
        raise Refusal(f"the mirror has no linux-image-{flavour} in {apt.suite}")
    apt.run("apt-get", "download", *wanted)


def _parts(apt: Apt, package: str, parts: re.Pattern[str]) -> set[str]:
    """Return the packages that make up the kernel which ``package`` stands for."""
    shown = apt.run("apt-cache", "depends", "--important", package)
    direct = set(parts.findall(shown)) - {package}
    return direct.union(*(_parts(apt, name, parts) for name in direct))
