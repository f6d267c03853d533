# SPDX-License-Identifier: Apache-2.0
"""All distributions built the way a stranger gets them: sdist from the tree, wheel from the sdist."""

from __future__ import annotations

import os
import runpy
import subprocess
import venv
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What authors run, and what the tests and the build of their packages need.
TOOLS = ("copier>=9.4", "tox>=4.25")
FOR_AUTHORS = ("copier>=9.4", "editables>=0.5", "hatchling>=1.26", "hypothesis>=6.100", "pytest>=8.2")

# What builds the others comes first; the rest needs no order.
FOLDERS = ["bpf_common", "sdk", "core", "bench", *sorted(f"plugins/{p.name}" for p in ROOT.glob("plugins/*"))]


OTHERS = ("PYTHON", "VIRTUAL_ENV", "TOX_", "PYTEST_")


def run(
    *command: str | Path, cwd: Path = ROOT, **environment: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run a command without anything of the environment that started the tests; fail with what it said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    kept |= {name: str(value) for name, value in environment.items()}
    answer = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, f"{command}\n{answer.stdout}\n{answer.stderr}"
    return answer


@dataclass(frozen=True)
class Built:
    """One distribution's two archives."""

    sdist: Path
    wheel: Path

    def metadata(self) -> dict[str, list[str]]:
        """Return the wheel's METADATA fields, each with all its values."""
        with zipfile.ZipFile(self.wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            message = Parser().parsestr(archive.read(name).decode())
        return {key: message.get_all(key, []) for key in set(message.keys())}


@dataclass(frozen=True)
class Workshop:
    """An environment that has only what builds need, and the folder the archives go to."""

    python: Path
    folder: Path
    built: dict[str, Built] = field(default_factory=dict)

    def offline(self) -> dict[str, Path | str]:
        """Return what makes pip install from the folder of wheels alone, for :func:`run`."""
        return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.wheels, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    @property
    def wheels(self) -> Path:
        """The folder that environments install from."""
        return self.folder / "wheels"

    def pip(self, *arguments: str | Path) -> None:
        run(self.python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def sdist(self, source: str) -> Path:
        output = self.folder / "sdists" / Path(source).name
        run(self.python, "-m", "hatchling", "build", "-t", "sdist", "-d", output, cwd=ROOT / source)
        (archive,) = output.iterdir()
        return archive

    def wheel(self, sdist: Path, output: Path) -> Path:
        """Build in a folder of pip's own, where nothing of this tree is in reach."""
        self.pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", output, sdist)
        (archive,) = output.glob("*.whl")
        return archive

    def build(self, source: str) -> None:
        sdist = self.sdist(source)
        wheel = self.wheel(sdist, self.folder / "made" / Path(source).name)
        self.built[source] = Built(sdist, wheel.rename(self.wheels / wheel.name))


def of_sdk(module: str) -> dict[str, Any]:
    """Return what a module of the SDK for tests defines. It is not installed here, so its file is run."""
    return runpy.run_path(str(ROOT / "sdk" / "src" / "emptcp_sdk" / "testing" / f"{module}.py"))


@pytest.fixture(autouse=True, scope="session")
def _no_mount_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Unmount what the environments' emptcp mounted."""
    mounts = of_sdk("mounts")
    yield
    mounts["unmount"](mounts["mounted"](tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Build every distribution once, core and plugins with the wheels of sdk and headers."""
    folder = tmp_path_factory.mktemp("workshop")
    venv.create(folder / "builder", with_pip=True, symlinks=True)
    made = Workshop(folder / "builder" / "bin" / "python", folder)
    made.wheels.mkdir()
    made.pip("install", "hatchling", *TOOLS)
    for source in FOLDERS[:2]:
        made.build(source)
    made.pip("install", "--no-index", "--find-links", made.wheels, "emptcp-sdk")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(made.build, FOLDERS[2:]))
    requirements = made.built["core"].metadata()["Requires-Dist"]
    foreign = [entry for entry in requirements if "extra ==" not in entry and not entry.startswith("emptcp")]
    made.pip("download", "--dest", made.wheels, *foreign, *FOR_AUTHORS)
    return made


@pytest.fixture
def environment(workshop: Workshop, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes an empty environment with one requirement from the local folder."""

    def make(requirement: str) -> Path:
        folder = tmp_path / "environment"
        venv.create(folder, with_pip=False, symlinks=True)
        python = folder / "bin" / "python"
        workshop.pip(
            "--python", python, "install", "--no-index", "--find-links", workshop.wheels, requirement
        )
        return folder / "bin"

    return make
