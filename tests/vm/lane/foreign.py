# SPDX-License-Identifier: Apache-2.0
"""Give a guest with another processor what was built for that one: Debian's packages, and wheels.

The packages are of the Debian release that this machine runs, so Python, libbpf and the programs have the
versions that they have here. Compiled parts of the environment's distributions come from wheels of their
versions. All else is the same as here, at the same path.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from lane import apt, environment
from lane.architectures import Architecture
from lane.cpio import Archive
from lane.refusal import Refusal

PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
PACKAGES = ("base-files", "dash", "ethtool", "iproute2", "libbpf1", "mount", "procps", "util-linux", PYTHON)
# glibc's versions that wheels are built for; Debian's Pythons that emptcp runs on have later ones.
PLATFORMS = ("manylinux2014", "manylinux_2_28")
# Seconds to get one wheel.
PATIENCE = 120


def add(archive: Archive, files: list[Path], architecture: Architecture, folder: Path) -> None:
    """Add the environment's ``files``, and what runs them on the other processor.

    What was downloaded stays in ``folder``. Raises :class:`Refusal` when something can't be got.
    """
    system = _system(architecture, folder)
    for path in environment.below(system):
        if not path.is_relative_to(system / "usr/share"):
            archive.move(path, system)
    for path in files:
        if not environment.compiled(path):
            archive.copy(path)
    for path, content in _compiled_parts(architecture, folder / "wheels"):
        archive.data(path, content)
    archive.link(Path(sys.executable), f"/usr/bin/{PYTHON}")
    archive.data(Path(sys.prefix, "pyvenv.cfg"), b"home = /usr/bin\n")


def _system(architecture: Architecture, folder: Path) -> Path:
    """Return the folder that the packages, and all they depend on, are unpacked in."""
    unpacked = folder / PYTHON
    if not unpacked.is_dir():
        debian = apt.Apt(folder / "apt", apt.suite(), architecture)
        debian.run("apt-get", "install", "--download-only", "--no-install-recommends", "--yes", *PACKAGES)
        debian.unpack(unpacked)
        environment.compile_all(unpacked / "usr/lib" / PYTHON)
    return unpacked


def _compiled_parts(architecture: Architecture, folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield path and contents of what is compiled in the environment's distributions."""
    for one in environment.distributions():
        if any(environment.compiled(path) for path in environment.belonging(one)):
            with zipfile.ZipFile(_wheel(f"{one.name}=={one.version}", architecture, folder)) as wheel:
                for name in wheel.namelist():
                    if environment.compiled(Path(name)):
                        yield Path(sysconfig.get_path("platlib"), name), wheel.read(name)


def _wheel(wanted: str, architecture: Architecture, folder: Path) -> Path:
    """Return a distribution's wheel for another processor, and for this Python."""
    kept = folder / f"{PYTHON}-{wanted}.whl"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            _download(wanted, architecture, made)
            (wheel,) = Path(made).iterdir()
            wheel.rename(kept)
    return kept


def _download(wanted: str, architecture: Architecture, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--implementation", "cp", "--dest", folder]
    command += ["--python-version", PYTHON.removeprefix("python")]
    for name in PLATFORMS:
        command += ["--platform", f"{name}_{architecture.kernel}"]
    try:
        subprocess.run([*command, wanted], check=True, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        raise Refusal(f"pip can't get {wanted} for {architecture.kernel}: {' '.join(said)}") from None
