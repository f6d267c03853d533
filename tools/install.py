# SPDX-License-Identifier: Apache-2.0
"""Install every distribution of this workspace, editable, into the environment whose Python runs this.

The environment already has hatchling (dependency group ``build``), because build isolation would set up an
environment of its own for each distribution. Used by ``make setup`` and by the tox environments.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What builds the others has to be there before pip asks them for their metadata.
FIRST = ("bpf_common", "sdk")


def distributions() -> list[str]:
    """Return the folders of the remaining distributions, relative to the root; core with its pictures."""
    found = [*ROOT.glob("*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")]
    names = [path.parent.relative_to(ROOT).as_posix() for path in sorted(found)]
    return ["core[lab]" if name == "core" else name for name in names if name not in FIRST]


def install(folders: list[str] | tuple[str, ...]) -> None:
    """Have pip install these folders in one run."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-build-isolation"]
    for folder in folders:
        command += ["--editable", f"./{folder}"]
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    try:
        install(FIRST)
        install(distributions())
    except subprocess.CalledProcessError as error:
        # pip has said why.
        sys.exit(error.returncode)
