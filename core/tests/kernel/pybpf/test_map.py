# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.pybpf import (
    BPF_F_MMAPABLE,
    BPF_F_NO_PREALLOC,
    BPF_NOEXIST,
    BpfError,
    Map,
    Program,
    features,
    load_program,
)
from emptcp.pybpf.assembly import answer

pytestmark = pytest.mark.kernel

CPUS = os.cpu_count() or 1
ENTRIES = {struct.pack("=I", n): struct.pack("=Q", n * n) for n in range(700)}


@pytest.fixture
def table():
    with Map.create("hash", 4, 8, 1000, name="table") as made:
        yield made


def test_a_value_is_read_as_it_was_written(table: Map) -> None:
    assert table.lookup(b"abcd") is None
    table.update(b"abcd", b"12345678")
    assert table.lookup(b"abcd") == b"12345678"
    assert table.delete(b"abcd")
    assert not table.delete(b"abcd")


def test_a_map_tells_what_it_is(table: Map) -> None:
    info = table.info
    assert (info.kind, info.name, info.key_size, info.value_size) == ("hash", "table", 4, 8)
    assert info.max_entries == 1000
    with Map.from_id(table.id) as again:
        assert again.info == info


@pytest.mark.parametrize("disable", ["", "batch"])
@pytest.mark.parametrize("kind", ["hash", "lru_hash"])
def test_entries_are_listed_completely_with_and_without_batches(
    monkeypatch: pytest.MonkeyPatch, kind: str, disable: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", disable)
    with Map.create(kind, 4, 8, 4096) as table:
        assert table.update_batch(ENTRIES.items()) == 700
        assert dict(table.items()) == ENTRIES
        assert len(list(table.items())) == 700
        assert set(table.keys()) == set(ENTRIES)
        assert table.delete_batch(list(ENTRIES)[:300]) == 300
        assert len(list(table.keys())) == 400


@pytest.mark.parametrize("disable", ["", "batch"])
@pytest.mark.parametrize("kind", ["hash", "lru_hash"])
def test_removing_passes_over_what_is_not_there(
    monkeypatch: pytest.MonkeyPatch, kind: str, disable: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", disable)
    with Map.create(kind, 4, 8, 4096) as table:
        table.update_batch(list(ENTRIES.items())[::2])
        assert table.delete_batch([*ENTRIES, *ENTRIES]) == 350
        assert table.delete_batch(ENTRIES) == 0
        assert list(table.items()) == []


@pytest.mark.parametrize("disable", ["", "batch"])
def test_prefixes_are_listed_and_removed(monkeypatch: pytest.MonkeyPatch, disable: str) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", disable)
    prefixes = {struct.pack("=I4B", bits, 10, 0, 0, 0): struct.pack("=Q", bits) for bits in range(8, 25)}
    with Map.create("lpm_trie", 8, 8, 100, flags=BPF_F_NO_PREALLOC) as trie:
        assert trie.update_batch(prefixes.items()) == len(prefixes)
        assert dict(trie.items()) == prefixes
        assert trie.delete_batch([*prefixes, *prefixes]) == len(prefixes)
        assert dict(trie.items()) == {}


@pytest.mark.parametrize("disable", ["", "batch"])
@pytest.mark.parametrize("kind", ["hash", "lpm_trie"])
def test_a_full_table_says_so(monkeypatch: pytest.MonkeyPatch, kind: str, disable: str) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", disable)
    pairs = [(struct.pack("=II", 32, n), bytes(8)) for n in range(700)]
    with Map.create(kind, 8, 8, 10, flags=BPF_F_NO_PREALLOC) as table:
        with pytest.raises(BpfError) as caught:
            table.update_batch(pairs)
        assert caught.value.full
        assert dict(table.items()) == dict(pairs[:10])


@pytest.mark.parametrize("disable", ["", "batch"])
def test_an_empty_table_has_no_entries(monkeypatch: pytest.MonkeyPatch, table: Map, disable: str) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", disable)
    assert list(table.items()) == []
    assert table.update_batch([]) == 0


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.binary(min_size=4, max_size=4), st.binary(min_size=8, max_size=8), max_size=600))
def test_a_table_holds_what_was_put_in(table: Map, entries: dict[bytes, bytes]) -> None:
    table.delete_batch(list(table.keys()))
    table.update_batch(entries.items())
    assert dict(table.items()) == entries


def test_an_array_lists_every_element() -> None:
    with Map.create("array", 4, 4, 300) as numbers:
        numbers.update_batch((struct.pack("=I", n), struct.pack("=I", 2 * n)) for n in range(300))
        assert [struct.unpack("=I", value)[0] for _, value in numbers.items()] == [2 * n for n in range(300)]


def test_a_per_cpu_value_is_one_per_cpu() -> None:
    with Map.create("percpu_array", 4, 12, 2) as counters:
        counters.update(bytes(4), b"A" * 12)
        values = counters.lookup_percpu(bytes(4))
        assert values is not None
        assert len(values) >= CPUS
        assert set(values) == {b"A" * 12}
        assert counters.lookup_percpu(struct.pack("=I", 1)) == [bytes(12)] * len(values)
        assert dict(counters.items_percpu())[bytes(4)] == values


def test_a_copy_has_the_entries_of_all_cpus(table: Map) -> None:
    table.update_batch(ENTRIES.items())
    with Map.create("hash", 4, 8, 1000) as other:
        other.copy(table)
        assert dict(other.items()) == ENTRIES
    with Map.create("percpu_array", 4, 12, 2) as counters, Map.create("percpu_array", 4, 12, 2) as other:
        values = counters.lookup_percpu(bytes(4))
        assert values
        counters.update_percpu(bytes(4), [bytes((n,)) * 12 for n in range(len(values))])
        other.copy(counters)
        assert dict(other.items_percpu()) == dict(counters.items_percpu())


def test_a_ring_buffer_has_no_entries_to_copy() -> None:
    with Map.create("ringbuf", 0, 0, 4096) as ring, Map.create("ringbuf", 0, 0, 4096) as other:
        other.copy(ring)


def test_asking_a_plain_map_for_cpus_is_an_error(table: Map) -> None:
    table.update(b"abcd", bytes(8))
    with pytest.raises(BpfError, match="'table' is a hash, not a per-CPU map"):
        table.lookup_percpu(b"abcd")


def test_wrong_lengths_are_refused_before_the_kernel_reads_past_them(table: Map) -> None:
    with pytest.raises(BpfError, match="a key of the map 'table' has 4 bytes, not 3"):
        table.lookup(b"abc")
    with pytest.raises(BpfError, match="a value of the map 'table' has 8 bytes, not 9"):
        table.update(b"abcd", bytes(9))
    with pytest.raises(BpfError, match="has 4 bytes, not 5"):
        table.update_batch([(b"abcd", bytes(8)), (b"abcde", bytes(8))])


def test_a_full_table_says_how_much_it_holds() -> None:
    with Map.create("hash", 4, 4, 2, name="small") as small:
        small.update(b"aaaa", bytes(4))
        small.update(b"bbbb", bytes(4))
        with pytest.raises(BpfError, match="cannot write to the map 'small'") as caught:
            small.update(b"cccc", bytes(4))
    assert caught.value.fix == "It holds at most 2 entries: make it larger."


def test_an_entry_that_must_be_new_is_not_overwritten(table: Map) -> None:
    table.update(b"abcd", b"12345678")
    with pytest.raises(BpfError, match="EEXIST"):
        table.update(b"abcd", bytes(8), BPF_NOEXIST)
    assert table.lookup(b"abcd") == b"12345678"


def test_mapped_memory_is_the_map() -> None:
    if not features.has("mmapable_array"):
        pytest.skip(features.reason("mmapable_array"))
    with Map.create("array", 4, 20, 3, flags=BPF_F_MMAPABLE) as parameters:
        memory = parameters.mmap()
        assert len(memory) == 3 * 24
        memory[24:44] = b"x" * 20
        assert parameters.lookup(struct.pack("=I", 1)) == b"x" * 20
        parameters.update(bytes(4), b"y" * 20)
        assert bytes(memory[:20]) == b"y" * 20
    memory[0:1] = b"z"  # still valid after close


def test_a_frozen_map_takes_no_more() -> None:
    with Map.create("array", 4, 4, 1, name="settled") as settled:
        settled.freeze()
        with pytest.raises(BpfError, match="cannot write to the map 'settled'"):
            settled.update(bytes(4), bytes(4))
    with Map.create("hash", 4, 4, 1) as plain, pytest.raises(BpfError, match="cannot be mapped into memory"):
        plain.mmap()


def test_a_pin_keeps_a_map(bpffs: Path) -> None:
    with Map.create("array", 4, 4, 1) as first:
        first.update(bytes(4), b"kept")
        first.pin(bpffs / "one")
        number = first.id
        with pytest.raises(BpfError, match="EEXIST"):
            first.pin(bpffs / "one")
    with Map.from_pin(bpffs / "one") as again:
        assert (again.id, again.lookup(bytes(4))) == (number, b"kept")


def test_pinning_off_a_bpf_file_system_says_so(tmp_path: Path, table: Map) -> None:
    with pytest.raises(BpfError, match="is not on a BPF file system") as caught:
        table.pin(tmp_path / "one")
    assert "mount -t bpf" in caught.value.fix
    with pytest.raises(BpfError, match="is no folder"):
        table.pin(tmp_path / "none" / "one")


def test_a_pin_of_another_kind_is_refused(bpffs: Path, table: Map) -> None:
    with load_program("xdp", answer(2)) as program:
        program.pin(bpffs / "program")
    table.pin(bpffs / "map")
    with pytest.raises(BpfError, match="is no map"):
        Map.from_pin(bpffs / "program")
    with pytest.raises(BpfError, match="is no program"):
        Program.from_pin(bpffs / "map")
    with pytest.raises(BpfError, match="ENOENT"):
        Map.from_pin(bpffs / "nothing")


def test_a_closed_map_says_so(table: Map) -> None:
    table.update(bytes(4), bytes(8))
    table.close()
    table.close()
    with pytest.raises(BpfError, match="this map was closed"):
        table.lookup(bytes(4))
    with pytest.raises(BpfError, match="this map was closed"):
        table.update(bytes(4), bytes(8))


def test_a_kind_the_kernel_does_not_take_is_described() -> None:
    with pytest.raises(BpfError, match=r"cannot create the array map 'odd' \(8\+4 B x 1\): .*EINVAL"):
        Map.create("array", 8, 4, 1, name="odd")
    with pytest.raises(BpfError, match="'aray' is no kind of map"):
        Map.create("aray", 4, 4, 1)
