# SPDX-License-Identifier: Apache-2.0
"""docs/reference/bpf-headers.md has everything public of the headers, as their comments say it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = "header_reference"


@pytest.fixture
def headers(tool: ModuleType, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tool.INCLUDE, tmp_path / "emptcp"))


def test_the_page_says_what_the_headers_say(tool: ModuleType) -> None:
    page = (ROOT / "docs" / "reference" / "bpf-headers.md").read_text(encoding="utf-8")
    assert page == tool.page(), "run: python tools/header_reference.py > docs/reference/bpf-headers.md"


def test_nothing_is_left_out(tool: ModuleType) -> None:
    page = tool.page()
    texts = [path.read_text(encoding="utf-8") for path in tool.INCLUDE.glob("*.h")]
    marked = sum(text.count("\nEMPTCP_PUBLIC ") for text in texts)
    rows = re.findall(r"^\| `[^(`]*\bemptcp_\w+\(", page, re.M)
    assert marked == len(rows) > 35
    macros = {"EMPTCP_SELECTOR", "EMPTCP_ACTOR_STATE", "EMPTCP_COMPANION", "EMPTCP_KEY", "EMPTCP_SCRATCH"}
    assert macros <= set(re.findall(r"^\| `(EMPTCP_\w+)\(", page, re.M))
    named = set(re.findall(r"\b(?:struct|enum) emptcp_\w+", page))
    internal = {f"struct emptcp_{name}" for name in ("event", "flow_entry")}
    assert {name for name in named - internal if f"**`{name}`**" not in page} == set()


@pytest.mark.parametrize(
    ("header", "comment", "said"),
    [
        ("packet.h", "The IPv4 header without its options; NULL when the packet is IPv6.", "emptcp_ip4"),
        ("abi.h", "Where a program runs, seen from the host.", "enum emptcp_hook"),
        (
            "key.h",
            "The body of a key: answers whether the packet has one, which it wrote to `key`.",
            "EMPTCP_KEY",
        ),
    ],
)
def test_something_public_without_a_comment_fails(
    tool: ModuleType, headers: Path, header: str, comment: str, said: str
) -> None:
    text = (headers / header).read_text(encoding="utf-8")
    assert f"/* {comment} */\n" in text
    (headers / header).write_text(text.replace(f"/* {comment} */\n", ""), encoding="utf-8")
    with pytest.raises(LookupError, match=f"{header}> does not say what {said} is"):
        tool.page(headers)


def test_a_public_function_in_a_header_that_the_page_lacks_fails(tool: ModuleType, headers: Path) -> None:
    with (headers / "parse.h").open("a", encoding="utf-8") as file:
        file.write("/* New. */\nEMPTCP_PUBLIC bool emptcp_new(void)\n{\n\treturn true;\n}\n")
    with pytest.raises(LookupError, match=r"parse\.h> has something public"):
        tool.page(headers)


def test_a_comment_that_names_what_is_not_there_fails(tool: ModuleType, headers: Path) -> None:
    text = (headers / "kind.h").read_text(encoding="utf-8")
    text = text.replace(" EMPTCP_NOWHERE without", " EMPTCP_SOMEWHERE without")
    (headers / "kind.h").write_text(text, encoding="utf-8")
    with pytest.raises(LookupError, match="EMPTCP_SOMEWHERE"):
        tool.page(headers)
