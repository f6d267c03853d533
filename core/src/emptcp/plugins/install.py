# SPDX-License-Identifier: Apache-2.0
"""Install plugins by pip, from wheels alone, into the environment that emptcp itself runs in.

A wheel is unpacked and nothing more: no code of its author's runs before the plugin is enabled.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from emptcp.errors import EmptcpError, quoted
from emptcp.plugins import discovery
from emptcp.plugins.discovery import Plugin
from emptcp.policy import requirement

_ARCHIVE = re.compile(r"\.(zip|tar|gz|bz2|xz|lz|lzma|tgz|tbz|txz|tlz)$", re.IGNORECASE)


def install(wanted: Sequence[str]) -> list[Plugin]:
    """Install distributions by ``NAME``, ``NAME>=VERSION`` or the path of a wheel.

    Returns the plugins that are new or of another version now. Raises :class:`EmptcpError` when something
    else is wanted, this Python is the system's own, or pip fails.
    """
    named = [_checked(one) for one in wanted]
    _refuse_the_systems()
    before = {plugin.id: plugin.version for plugin in discovery.discover()}
    command = [*_pip(), "install", "--disable-pip-version-check", "--only-binary", ":all:", *named]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmptcpError(f"pip can't install {', '.join(wanted)}: {_said(done)}")
    importlib.invalidate_caches()
    return [one for one in discovery.discover() if before.get(one.id) != one.version]


def _checked(wanted: str) -> str:
    """Return what pip is to be given; only names and wheels are."""
    if wanted.endswith(".whl"):
        if not Path(wanted).is_file():
            raise EmptcpError(f"there is no wheel {quoted(wanted, 256)}", fix="Give the path of one.")
        return str(Path(wanted).resolve())
    try:
        # pip takes the name of an archive in this folder for a path, not for a name.
        if _ARCHIVE.search(wanted):
            raise EmptcpError("an archive")
        return str(requirement.parse(wanted))
    except EmptcpError:
        fix = "Only wheels are installed: what else pip takes runs its author's code at once."
        raise EmptcpError(f"{quoted(wanted, 256)} is neither a name nor a wheel", fix=fix) from None


def _refuse_the_systems() -> None:
    """Refuse a Python that the system's own packages are for (PEP 668)."""
    in_environment = sys.prefix != sys.base_prefix
    marker = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if not in_environment and marker.exists():
        raise EmptcpError(
            f"emptcp runs in the system's own Python ({sys.executable}), whose packages apt installs",
            fix="Install emptcp into an environment of its own, made by: python3 -m venv /opt/emptcp",
        )


def _pip() -> list[str]:
    """Return how pip is called for this environment, which may have none of its own."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    outside = shutil.which("pip") or shutil.which("pip3")
    if outside is None:
        fix = f"Run: {sys.executable} -m ensurepip"
        raise EmptcpError("installing needs pip, which is not there", fix=fix)
    return [outside, "--python", sys.executable]


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """Return pip's own words: its last error."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it does not say why"])[-1]
