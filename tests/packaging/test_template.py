# SPDX-License-Identifier: Apache-2.0
"""What `emptcp-sdk new` makes passes its own tox, from wheels alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Workshop, run

# As root: its tests run packets in the kernel.
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(200)]


KINDS = [
    ("selector", ()),
    ("actor", ()),
    ("controller", ()),
    ("controller", ("--answer", "variant=path-manager")),
]


@pytest.mark.parametrize(("kind", "answers"), KINDS)
def test_a_new_package_passes_its_own_tox(
    workshop: Workshop, tmp_path: Path, kind: str, answers: tuple[str, ...]
) -> None:
    commands = workshop.python.parent
    new = (commands / "emptcp-sdk", "new", "mine", "--kind", kind, "--into", "mine", "--defaults")
    run(*new, *answers, cwd=tmp_path)
    said = run(commands / "tox", cwd=tmp_path / "mine", **workshop.offline())
    assert " passed" in said.stdout
    assert " skipped" not in said.stdout
