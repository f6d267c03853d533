# SPDX-License-Identifier: Apache-2.0
"""The headers need nothing but themselves, and say what plugins may rely on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from emptcp.chain.reasons import REASONS, SLOTS
from emptcp.plugins.versions import CHAIN_ABI, HEADERS
from emptcp.pybpf import Btf, ObjectSpec
from emptcp_bpf_common import include_folder
from emptcp_sdk.compiler import FLAGS, compile_source, find_compiler

FILES = sorted(path.name for path in (include_folder() / "emptcp").glob("*.h"))

CAP_WINDOW = """
#include <emptcp/actor.h>

struct cap_window { __u32 bytes; };

EMPTCP_ACTOR(cap_window, pkt, struct cap_window, param)
{
    const struct tcphdr *tcp = emptcp_tcp(pkt);
    if (tcp->syn)
        return EMPTCP_NEXT;
    emptcp_cap_window(pkt, tcp, param->bytes);
    return EMPTCP_NEXT;
}
"""


def compiled(folder: Path, text: str) -> Path:
    """Compile C text as plugins are compiled."""
    source = folder / "test.bpf.c"
    source.write_text(text, encoding="utf-8")
    compile_source(find_compiler(), source, folder / "test.bpf.o")
    return folder / "test.bpf.o"


def refused(folder: Path, text: str) -> str:
    """Return what the compiler has against C text."""
    source = folder / "test.bpf.c"
    source.write_text(text, encoding="utf-8")
    command = [find_compiler().path, *FLAGS, f"-I{include_folder()}", "-c", str(source), "-o", "/dev/null"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    return answer.stderr


def types(path: Path) -> Btf:
    """Return an object's types."""
    found = ObjectSpec.read(path).btf
    assert found is not None
    return found


def test_there_are_headers() -> None:
    assert {"abi.h", "actor.h", "parse.h", "selector.h", "uapi.h"} <= set(FILES)


@pytest.mark.parametrize("header", FILES)
def test_every_header_compiles_alone(tmp_path: Path, header: str) -> None:
    compiled(tmp_path, f"#include <emptcp/{header}>\n")


@pytest.mark.parametrize("header", FILES)
def test_every_header_may_be_included_twice_and_includes_only_its_own_kind(
    tmp_path: Path, header: str
) -> None:
    compiled(tmp_path, f"#include <emptcp/{header}>\n" * 2)
    text = (include_folder() / "emptcp" / header).read_text(encoding="utf-8")
    included = re.findall(r"^#include (.*)$", text, re.MULTILINE)
    assert all(name.startswith("<emptcp/") for name in included)


def test_a_short_actor_compiles_for_both_back_ends(tmp_path: Path) -> None:
    spec = ObjectSpec.read(compiled(tmp_path, CAP_WINDOW))
    sections = {program.section for program in spec.programs.values()}
    assert {"emptcp.xdp/cap_window", "emptcp.tc/cap_window"} <= sections
    assert spec.btf is not None
    for function, context in (("cap_window__xdp", "xdp_md"), ("cap_window__tc", "__sk_buff")):
        prototype = spec.btf.prototype(function)
        described = [spec.btf.describe(type_id) for _, type_id in prototype.arguments]
        assert [context in described[0], "emptcp_pkt" in described[1]] == [True, True]
        assert "cap_window" in described[2]
        assert "void" in described[3]
        assert "emptcp_flow" in described[4]


def test_every_fragment_has_a_record(tmp_path: Path) -> None:
    text = """
#include <emptcp/actor.h>
#include <emptcp/selector.h>
struct p { __u32 n; };
struct s { __u64 n; };
EMPTCP_SELECTOR(plain, pkt, void, param) { return true; }
EMPTCP_SELECTOR_STATE(full, pkt, struct p, param, struct s, state) { return state->n > param->n; }
EMPTCP_ACTOR(act, pkt, struct p, param) { return emptcp_skip(pkt, EMPTCP_NO_OPTION); }
EMPTCP_COMPANION(note, pkt, struct s, state) { state->n++; }
"""
    data = ObjectSpec.read(compiled(tmp_path, text)).section("emptcp.abi")
    assert data is not None
    records = {}
    for at in range(0, len(data), 64):
        size, abi, headers, kind, flags = (
            int.from_bytes(data[at + a : at + b], "little")
            for a, b in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12))
        )
        records[data[at + 16 : at + 64].rstrip(b"\0").decode()] = (size, abi, headers, kind, flags)
    assert records == {
        "plain": (64, CHAIN_ABI, HEADERS, 1, 0),
        "full": (64, CHAIN_ABI, HEADERS, 1, 3),
        "act": (64, CHAIN_ABI, HEADERS, 2, 1),
        "note": (64, CHAIN_ABI, HEADERS, 3, 2),
    }


@pytest.mark.parametrize(
    "statement", ["tcp->window = 0", "tcp->seq++", "*(&tcp->check) = 1", "emptcp_ip4(pkt)->ttl = 1"]
)
def test_a_header_is_not_written_through_a_pointer(tmp_path: Path, statement: str) -> None:
    text = CAP_WINDOW.replace("    emptcp_cap_window(pkt, tcp, param->bytes);", f"    {statement};")
    assert re.search("const|read-only", refused(tmp_path, text))


def test_a_struct_larger_than_the_scratch_is_refused_where_it_is_used(tmp_path: Path) -> None:
    line = "    EMPTCP_SCRATCH(pkt, struct mark)->n[0] = 1;"
    text = CAP_WINDOW.replace("    emptcp_cap_window(pkt, tcp, param->bytes);", line)
    fitting = text.replace("EMPTCP_ACTOR(", "struct mark { __u32 n[4]; };\nEMPTCP_ACTOR(", 1)
    assert ObjectSpec.read(compiled(tmp_path, fitting)).programs
    assert "larger than a packet's scratch" in refused(tmp_path, fitting.replace("n[4]", "n[5]"))


@pytest.mark.parametrize(("struct", "size"), [("emptcp_key", 36), ("emptcp_flow", 64), ("emptcp_abi", 64)])
def test_sizes_are_part_of_the_abi(tmp_path: Path, struct: str, size: int) -> None:
    found = types(compiled(tmp_path, f"#include <emptcp/abi.h>\nstruct {struct} kept;\n"))
    wanted = found.find(struct, "struct")
    assert wanted is not None
    assert found.size(wanted.id) == size


def test_what_fragments_read_stays_where_it_is(tmp_path: Path) -> None:
    found = types(compiled(tmp_path, "#include <emptcp/abi.h>\nstruct emptcp_pkt kept;\n"))
    struct = found.find("emptcp_pkt", "struct")
    assert struct is not None
    places = {member.name: (member.offset, member.size) for member in found.members(struct.id)}
    # Appended to, never changed: objects compiled against an older header read these places.
    assert list(places.items())[:35] == [
        ("size", (0, 4)),
        ("hook", (4, 1)),
        ("backend", (5, 1)),
        ("family", (6, 1)),
        ("flags", (7, 1)),
        ("l3", (8, 2)),
        ("l4", (10, 2)),
        ("payload", (12, 2)),
        ("ip_end", (14, 2)),
        ("payload_len", (16, 4)),
        ("tcp_flags", (20, 1)),
        ("direction", (21, 1)),
        ("options_len", (22, 1)),
        ("no_modify", (23, 1)),
        ("reason", (24, 1)),
        ("timestamps", (25, 1)),
        ("sack", (26, 1)),
        ("window_scale", (27, 1)),
        ("subtypes", (28, 2)),
        ("repeated", (30, 2)),
        ("at", (32, 16)),
        ("len", (48, 16)),
        ("redirect", (64, 4)),
        ("key", (68, 36)),
        ("scratch", (104, 16)),
        ("block", (120, 64)),
        ("cursor", (184, 4)),
        ("argument", (188, 4)),
        ("option", (192, 40)),
        ("built", (232, 64)),
        ("nops", (296, 8)),
        ("heads", (304, 8)),
        ("places", (312, 32)),
        ("places_len", (344, 4)),
        ("built_len", (348, 4)),
    ]


def test_reasons_have_the_names_that_core_prints(tmp_path: Path) -> None:
    found = types(compiled(tmp_path, "#include <emptcp/abi.h>\nenum emptcp_reason kept;\n"))
    enum = found.find("emptcp_reason", "enum")
    assert enum is not None
    values = found.values(enum.id)
    assert values.pop("EMPTCP_REASONS") == SLOTS
    assert {name.removeprefix("EMPTCP_").lower(): number for name, number in values.items()} == {
        name: number for number, name in enumerate(REASONS)
    }


def test_helper_numbers_are_the_kernel_s(tmp_path: Path) -> None:
    known = Path("/usr/include/linux/bpf.h")
    if not known.exists():
        pytest.skip("no linux/bpf.h to compare with")
    text = known.read_text(encoding="utf-8")
    mapper = text[text.index("#define __BPF_FUNC_MAPPER") :]
    numbers = {f"bpf_{name}": n for n, name in enumerate(re.findall(r"\bFN\((\w+)[,)]", mapper))}
    ours = (include_folder() / "emptcp" / "bpf.h").read_text(encoding="utf-8")
    declared = re.findall(r"EMPTCP_HELPER\([^,]+, (bpf_\w+), (\d+)", ours)
    assert len(declared) > 30
    assert {name: int(number) for name, number in declared} == {name: numbers[name] for name, _ in declared}


def test_the_reference_names_every_reason_of_the_parser() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "packets.md"
    if not page.exists():
        pytest.skip("outside of the repository there is no reference")
    parser = "".join(
        (include_folder() / "emptcp" / name).read_text(encoding="utf-8") for name in ("parse.h", "walk.h")
    )
    given = {name.lower() for name in re.findall(r"EMPTCP_(\w+)", parser) if name.lower() in REASONS}
    assert {"fragment", "signed", "truncated"} <= given
    text = page.read_text(encoding="utf-8")
    assert {name for name in given - {"ok"} if f"`{name}`" not in text} == set()
