# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
from pathlib import Path

import pytest

from emptcp.pybpf.verifier import Line, VerifierError, explain, keep_log

# As kernel 6.18 writes it: C lines with their place.
PACKET = """\
0: R1=ctx() R10=fp0
; __u8 *data = (void *)(long)ctx->data; @ cap.bpf.c:17
0: (61) r1 = *(u32 *)(r1 +0)          ; R1=pkt(r=0)
; return data[14]; @ cap.bpf.c:18
1: (71) r0 = *(u8 *)(r1 +14)
invalid access to packet, off=14 size=1, R1(id=0,off=14,r=0)
R1 offset is outside of the packet
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
# As kernel 5.10 writes it: without the place, and the old names of register states.
NULL_5_10 = """\
Validating cap() func#0...
; __u64 *found = bpf_map_lookup_elem(&table, &key);
6: (85) call bpf_map_lookup_elem#1
7: R0_w=map_value_or_null(id=1,off=0,ks=4,vs=32,imm=0) R10=fp0 fp-8=mmmm????
; return found[0];
7: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
verification time 84 usec
stack depth 8
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_the_last_sentence_the_c_line_and_its_place_are_found() -> None:
    found = explain(PACKET)
    assert found.reason == "R1 offset is outside of the packet"
    assert (found.file, found.line, found.source_line) == ("cap.bpf.c", 18, "return data[14];")
    assert found.instruction == 1
    assert "data_end" in found.hint
    assert found.omitted == 6


def test_an_old_kernels_log_is_read_too() -> None:
    found = explain(NULL_5_10)
    assert found.reason == "R0 invalid mem access 'map_value_or_null'"
    assert (found.source_line, found.file, found.place) == ("return found[0];", "", "")
    assert "NULL" in found.hint


def test_known_lines_give_the_place_where_the_log_does_not() -> None:
    lines = [Line(0, "plugin.bpf.c", "first();", 3, 1), Line(7, "plugin.bpf.c", "return found[0];", 9, 2)]
    assert explain(NULL_5_10, lines).place == "plugin.bpf.c:9"
    assert explain(NULL_5_10, lines[:1]).place == "plugin.bpf.c:3"


@pytest.mark.parametrize(
    ("tail", "reason", "hint"),
    [
        ("BPF program is too large. Processed 1000001 insn", "BPF program is too large", "too many paths"),
        (
            "infinite loop detected at insn 9\ncur state: R0=scalar()\nold state: R0=scalar()",
            "infinite loop",
            "bound",
        ),
        ("back-edge from insn 7 to 3", "back-edge", "bound"),
        ("combined stack size of 2 calls is 608. Too large", "combined stack size", "256 bytes"),
        ("R3 !read_ok", "R3 !read_ok", "before it is set"),
        ("invalid indirect read from stack R2 off -16+4 size 8", "indirect read", "Initialise"),
        ("invalid read from stack off -16+4 size 8", "invalid read", "Initialise"),
        ("unknown func bpf_loop#181", "unknown func", "no such helper"),
        (
            "program of this type cannot use helper bpf_skb_store_bytes#9",
            "cannot use helper",
            "no such helper",
        ),
        ("cannot call GPL-restricted function from non-GPL compatible program", "GPL", "Dual BSD/GPL"),
        (
            "R1 unbounded memory access, make sure to bounds check any such access",
            "unbounded",
            "Bound the index",
        ),
        (
            "Unreleased reference id=2 alloc_insn=4\nBPF_EXIT instruction would lead to reference leak",
            "reference leak",
            "Submit or discard",
        ),
        ("Caller passes invalid args into func#1 ('g')", "Caller passes invalid args", "numbers only"),
        ("R1 invalid mem access 'inv'", "invalid mem access", "not a pointer"),
        (
            "At program exit the register R0 has unknown scalar value should have been in (0x0; 0x1)",
            "R0",
            "answer",
        ),
    ],
)
def test_common_rejections_come_with_advice(tail: str, reason: str, hint: str) -> None:
    found = explain(f"; code();\n3: (95) exit\n{tail}\nprocessed 4 insns (limit 1000000)\n")
    assert reason in found.reason
    assert hint in found.hint


def test_a_reason_nobody_foresaw_is_shown_as_it_is() -> None:
    found = explain("; code();\n3: (95) exit\nthe moon is in the wrong phase\nprocessed 4 insns\n")
    assert (found.reason, found.hint) == ("the moon is in the wrong phase", "")


def test_an_empty_log_is_no_crash() -> None:
    found = explain("")
    assert (found.reason, found.omitted, found.instruction) == ("it does not say why", 0, None)


def test_an_error_has_at_most_six_lines_whatever_the_log() -> None:
    log = "".join(f"{n}: (07) r1 += 1\n; x = {'y' * 300};\n" for n in range(5000)) + PACKET
    text = str(
        VerifierError("'cap'", errno=errno.EACCES, log=log, log_file=Path("/run/emptcp/verifier-cap.log"))
    )
    assert len(text.splitlines()) <= 6
    assert text.startswith("cap.bpf.c:18: the verifier refuses 'cap': R1 offset is outside of the packet\n")
    assert "    return data[14];" in text
    assert "10006 lines omitted; the whole log is in /run/emptcp/verifier-cap.log" in text


def test_the_whole_log_is_kept_for_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / "run"))
    path = keep_log("emptcp/ingress", PACKET)
    assert path == tmp_path / "run" / "verifier-emptcp_ingress.log"
    assert path.read_text() == PACKET
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_is_kept_elsewhere_where_the_folder_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / "file" / "run"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = keep_log("ingress", PACKET)
    assert path is not None
    assert (path.parent, path.read_text()) == (tmp_path, PACKET)
