# SPDX-License-Identifier: Apache-2.0
"""Get packages of Debian's, of any suite and for any processor, from the mirror this machine is set to.

Nothing of the system's apt is changed. What was unpacked once is used again, until its folder is removed.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lane.architectures import Architecture
from lane.refusal import Refusal

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Seconds for one run of apt.
PATIENCE = 240


class Apt:
    """apt with one suite of the machine's Debian mirror, for one processor, in a folder of its own."""

    def __init__(self, folder: Path, suite: str, architecture: Architecture) -> None:
        self.folder, self.suite, self.architecture = folder, suite, architecture
        for made in ("lists/partial", "archives/partial"):
            (folder / made).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        (folder / "sources.list").write_text(f"deb {signed}{_mirror()} {suite} main\n", encoding="utf-8")
        settings = {
            "APT::Architecture": architecture.debian,
            "APT::Architectures": architecture.debian,
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
        self.run("apt-get", "update")

    def run(self, tool: str, *words: str) -> str:
        """Run a tool of apt's; return what it says. Raises :class:`Refusal` with apt's reason if it fails."""
        try:
            return _run(tool, *self.options, "-qq", *words, cwd=self.folder / "archives")
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[:1]
            what = f"packages for {self.architecture.debian} from Debian's {self.suite}"
            raise Refusal(f"apt can't get {what}: {' '.join(said)}") from None

    def unpack(self, target: Path) -> None:
        """Unpack all that was downloaded, then give ``target`` its name: an interrupted one is not whole."""
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for package in sorted((self.folder / "archives").glob("*.deb")):
            _run("dpkg-deb", "--extract", str(package), str(partial))
            package.unlink()
        partial.rename(target)


def suite() -> str:
    """Return the name of the Debian release that this machine runs; empty where it is another system."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def _mirror() -> str:
    """Return the address this machine has for its own Debian release.

    Found by the release's name, because without downloaded lists apt knows no origins.
    """
    names = {suite(), "stable"}
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
