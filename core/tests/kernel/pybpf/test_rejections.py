# SPDX-License-Identifier: Apache-2.0
"""What the verifier refuses most, provoked in this kernel: the C line that is named, and the advice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from emptcp.pybpf import VerifierError, load_object

pytestmark = pytest.mark.kernel

MAPS = """
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct { __u64 number[4]; });
} table SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} records SEC(".maps");
const volatile __u32 settings[4];
"""


@dataclass(frozen=True)
class Rejection:
    """A program's body; the line that ends in ``here`` is the one to be named, where the log tells lines."""

    name: str
    body: str
    reason: str
    advice: str
    before: str = ""
    licence: str = "Dual BSD/GPL"

    def __str__(self) -> str:
        return self.name

    @property
    def source(self) -> str:
        """The C file; the program is ``f``, at TC."""
        program = f'SEC("tc") int f(struct __sk_buff *ctx)\n{{\n{self.body}\n}}\n'
        return f'{MAPS}{self.before}\n{program}char LICENSE[] SEC("license") = "{self.licence}";\n'

    @property
    def line(self) -> str:
        """The C line that is to be named; empty where the log tells none."""
        found = [line for line in self.source.splitlines() if line.endswith("/* here */")]
        return found[0].strip() if found else ""


LARGE = """
static __noinline int second(struct __sk_buff *ctx)
{
	volatile __u8 local[300];
	local[ctx->len & 255] = 1;
	return local[ctx->mark & 255];
}
static __noinline int first(struct __sk_buff *ctx)
{
	volatile __u8 local[300];
	local[ctx->len & 255] = 1;
	return second(ctx) + local[ctx->mark & 255];
}
"""

REJECTIONS = [
    Rejection(
        "a packet read without a bound",
        "\t__u8 *data = (void *)(long)ctx->data;\n\treturn data[14]; /* here */",
        "outside of the packet",
        "Compare the pointer with data_end",
    ),
    Rejection(
        "a look-up that may find nothing",
        "\t__u32 key = 0;\n\t__u64 *found = bpf_map_lookup_elem(&table, &key);\n\treturn *found; /* here */",
        "invalid mem access 'map_value_or_null'",
        "Test the pointer for NULL",
    ),
    Rejection(
        "a packet pointer from before a helper that moves the packet",
        "\t__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;\n"
        "\tif (data + 15 > end)\n\t\treturn 0;\n"
        "\tbpf_skb_pull_data(ctx, 0);\n\treturn data[14]; /* here */",
        "invalid mem access '(scalar|inv)'",
        "read packet pointers again after a helper",
    ),
    Rejection(
        "an index without a bound",
        "\t__u32 key = 0;\n\tstruct { __u64 number[4]; } *found = bpf_map_lookup_elem(&table, &key);\n"
        "\tif (!found)\n\t\treturn 0;\n\treturn found->number[ctx->len]; /* here */",
        "unbounded memory access|min value is outside|invalid access to map value",
        "Bound the index",
    ),
    Rejection(
        "too many paths",
        '\tregister __u32 one asm("r2") = ctx->mark, other asm("r3") = ctx->len;\n'
        '\tasm volatile(".rept 9000\\n\\tif r2 > r3 goto +1\\n\\tr4 = 1\\n\\t.endr"'
        ' :: "r"(one), "r"(other) : "r4");\n'
        "\treturn 0;",
        "too complex|too large",
        "small constant bound",
    ),
    Rejection(
        "a loop without an end",
        '\twhile (ctx->mark != 7)\n\t\tasm volatile("");\n\treturn 0;',
        "infinite loop|back-edge",
        "Give the loop a bound",
    ),
    Rejection(
        "too much stack in two functions",
        "\treturn first(ctx);",
        "combined stack size",
        "Keep local data smaller",
        before=LARGE,
    ),
    Rejection(
        "a register that nothing was put into",
        '\tasm volatile("r2 = r7" ::: "r2"); /* here */\n\treturn 0;',
        "!read_ok",
        "initialise it on every path",
    ),
    Rejection(
        "a helper of another hook",
        "\treturn ((long (*)(void *, int))44)(ctx, 0); /* here */",
        "cannot use helper|unknown func",
        "This hook or this kernel has no such helper",
    ),
    Rejection(
        "a GPL-only helper in a program that is not under it",
        '\tstatic const char text[] = "x";\n'
        "\treturn ((long (*)(const char *, __u32))6)(text, sizeof(text)); /* here */",
        "GPL",
        "State a GPL-compatible licence",
        licence="Proprietary",
    ),
    Rejection(
        "a record that is neither submitted nor discarded",
        "\tvoid *record = bpf_ringbuf_reserve(&records, 8, 0);\n\treturn !record;",
        "[Uu]nreleased reference|reference leak",
        "Submit or discard",
    ),
    Rejection(
        "a field that this hook does not have",
        "\treturn *(__u32 *)((char *)ctx + 512); /* here */",
        "invalid bpf_context access",
        "Read only fields that this hook's context has",
    ),
    Rejection(
        "a write to a constant",
        "\t*(volatile __u32 *)&settings[1] = 7; /* here */\n\treturn 0;",
        "write into map forbidden",
        "What is written to here is read-only",
    ),
    Rejection(
        "arithmetic on two pointers",
        '\tasm volatile("r2 = r10\\n\\tr2 += r10" ::: "r2"); /* here */\n\treturn 0;',
        "pointer \\+= pointer|prohibited",
        "add bounded numbers only",
    ),
]


@pytest.mark.parametrize("rejection", REJECTIONS, ids=str)
def test_a_rejection_names_the_c_line_and_comes_with_advice(
    rejection: Rejection,
    compile_bpf: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    with pytest.raises(VerifierError, match=rejection.reason) as caught:
        load_object(compile_bpf(rejection.source, "rejected"))
    told = caught.value.explanation
    assert rejection.advice in told.hint
    assert len(str(caught.value).splitlines()) <= 6
    if rejection.line:
        assert told.source_line == rejection.line


def test_there_are_more_than_ten_and_each_has_other_advice() -> None:
    assert len({rejection.advice for rejection in REJECTIONS}) == len(REJECTIONS) > 10
