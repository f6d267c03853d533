# SPDX-License-Identifier: Apache-2.0
"""Values of maps as they are written and packed; what makes two kernel maps interchangeable; pins' names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.chain import storage
from emptcp.chain.pins import Pins
from emptcp.chain.plan import FragmentRef
from emptcp.chain.storage import Storage, Store, ValueForm
from emptcp.errors import EmptcpError
from emptcp.plugins.manifest import Parameter
from emptcp.policy import values
from emptcp.policy.keys import KeyFormat

KEY = KeyFormat(["int"])
STORED = Storage(repr(KEY), KEY.size, "", 100, False, False)
SET = Store("set", "home.lan", "bulk_1", FragmentRef("p", "o", "k"), STORED, KEY)


def form(kind: values.ValueType, size: int = 8, **bounds: int) -> ValueForm:
    parameter = Parameter("rate", kind, minimum=bounds.get("least"), maximum=bounds.get("most"))
    return ValueForm(parameter, values.Field(0, size), "parameter 'rate' of actor 'a'")


KINDS = {
    "int": (values.Int(), st.integers(0, 2**32 - 1).map(str)),
    "named": (values.Int({"slow": 1, "fast": 2}), st.sampled_from(["slow", "fast"])),
    "bool": (values.Bool(), st.sampled_from(["true", "false"])),
    "rate": (values.Rate(), st.integers(1, 10**6).map("{}kbit".format)),
    "rate in bits": (values.Rate("bit"), st.integers(1, 10**6).map("{}kbit".format)),
    "size": (values.Size(), st.integers(1, 10**6).map("{}k".format)),
    "time": (values.Time("us"), st.integers(1, 10**6).map("{}us".format)),
    "percent": (values.Percent(), st.integers(0, 100).map("{}%".format)),
    "port": (values.Port(), st.integers(1, 65535).map(str)),
    "flags": (values.Flags({"syn": 1, "ack": 2, "both": 3}), st.sampled_from(["syn", "ack", "syn|ack"])),
}


@given(data=st.data(), name=st.sampled_from(list(KINDS)))
def test_a_value_that_is_read_again_is_the_same(data: st.DataObject, name: str) -> None:
    kind, written = KINDS[name]
    text = data.draw(written)
    one = form(kind)
    packed = one.pack(text)
    assert len(packed) == storage.VALUE_BYTES
    assert one.pack(one.text(packed)) == packed
    again = kind.parse(one.text(packed))
    assert again == kind.parse(text) or name == "flags"  # of which several may say the same


def test_a_negative_number_keeps_its_sign() -> None:
    one = ValueForm(Parameter("n", values.Int()), values.Field(0, 2, signed=True), "")
    assert one.text(one.pack("-5")) == "-5"


@pytest.mark.parametrize(
    ("one", "text", "sentence"),
    [
        (form(values.Int(), most=5), "6", "'6' is out of range"),
        (form(values.Int(), 1), "256", "does not fit into 8 bits"),
        (form(values.Rate()), "5", "lacks its unit"),
        (form(values.Bool()), "[true]", "is no bool"),
        (form(values.Bool()), "subflow @x", "is no bool"),
        (form(values.Int()), "", "'' is no int"),
    ],
)
def test_a_value_that_is_wrong_is_refused(one: ValueForm, text: str, sentence: str) -> None:
    store = replace(SET, kind="map", value=one)
    with pytest.raises(EmptcpError) as caught:
        store.value_of(text)
    assert sentence in str(caught.value)
    assert "map 'bulk_1': " in str(caught.value)


def test_an_entry_counts_until_its_time_has_come() -> None:
    assert storage.lives(storage.entry(b"", 0), 10**18)
    assert storage.lives(storage.entry(b"v", 5), 4)
    assert not storage.lives(storage.entry(b"v", 5), 5)
    assert storage.says(storage.entry(b"value", 7)) == b"value"
    assert storage.expiry(storage.entry(b"value", 7)) == 7


def test_what_changes_the_layout_and_what_only_the_shape() -> None:
    for other in (replace(STORED, size=5), replace(STORED, lru=True)):
        assert (other.layout == STORED.layout, other.shape == STORED.shape) == (True, False)
    for other in (replace(STORED, key="another"), replace(STORED, value="v")):
        assert (other.layout == STORED.layout, other.shape == STORED.shape) == (False, True)
    layouts = {form(KINDS[name][0]).layout for name in KINDS}
    assert len(layouts) == len(KINDS)
    assert form(values.Int(), 4).layout != form(values.Int(), 8).layout != form(values.Int(), most=5).layout


def test_a_pin_tells_what_it_is_of(tmp_path: Path) -> None:
    tree = Pins(tmp_path)
    path = tree.store(SET)
    assert "." not in str(path.relative_to(tmp_path))
    assert tree.store_name(path) == ("set", "bulk_1")
    assert tree.store_layout(path) == STORED.layout
    tree.make(path.parent)
    path.touch()
    assert tree.with_stores() == ["home.lan"]
    assert tree.last_store(SET) is None
    larger = replace(SET, storage=replace(STORED, size=200))
    other = replace(SET, storage=replace(STORED, key="another"))
    assert tree.last_store(larger) == tree.last_store(other) == path
    tree.store(other).touch()
    assert tree.last_store(larger) == path  # what can be copied comes first
    assert tree.last_store(replace(larger, name="bulk")) is None
