# SPDX-License-Identifier: Apache-2.0
"""docs/reference/hooks.md has every hook and all that plugins may import, as their docstrings say it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from emptcp import api, hookspecs

ROOT = Path(__file__).resolve().parents[2]
TOOL = "hook_reference"


def test_the_page_says_what_the_docstrings_say(tool: ModuleType) -> None:
    page = (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
    assert page == tool.page(), "run: python tools/hook_reference.py > docs/reference/hooks.md"


def test_nothing_is_left_out(tool: ModuleType) -> None:
    page = tool.page()
    specs = [name for name in vars(hookspecs) if name.startswith("emptcp_")]
    assert len(specs) > 10
    assert all(f"### `{name}(" in page for name in specs)
    assert all(f"| `{name}` |" in page for name in api.__all__)


def test_a_hook_without_documentation_fails(tool: ModuleType) -> None:
    def emptcp_undocumented(change: object, reason: str) -> None:
        """Do something.

        :param change: what happened.

        .. code-block:: python

            @hookimpl
            def emptcp_undocumented(change): ...
        """

    with pytest.raises(LookupError, match="emptcp_undocumented does not document reason"):
        tool.hook("emptcp_undocumented", emptcp_undocumented)
    with pytest.raises(LookupError, match=r"emptcp\.api\.thing has no documentation"):
        tool.first_line("thing", lambda: None)
