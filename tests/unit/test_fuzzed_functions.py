# SPDX-License-Identifier: Apache-2.0
"""No function that the headers' reference names is left out of the fuzzer."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference/bpf-headers.md"
FUZZED = ROOT / "bpf_common/tests/kernel/programs/fuzz.bpf.c"


def documented() -> set[str]:
    """Names in the first column of the tables "Reading" and "Changing"."""
    text = REFERENCE.read_text(encoding="utf-8")
    tables = [text.partition(f"## {name}\n")[2].partition("\n## ")[0] for name in ("Reading", "Changing")]
    cells = [row.split(" | ")[0] for table in tables for row in table.splitlines() if row.startswith("| `")]
    return {
        name for cell in cells for name in re.findall(r"`(emptcp_\w+|EMPTCP_OPTION|EMPTCP_SCRATCH)", cell)
    }


def test_every_documented_function_is_fuzzed() -> None:
    source, names = FUZZED.read_text(encoding="utf-8"), documented()
    assert {"emptcp_rewrite", "emptcp_find", "emptcp_event", "EMPTCP_OPTION"} <= names
    assert len(names) > 25
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\(", source)] == []
