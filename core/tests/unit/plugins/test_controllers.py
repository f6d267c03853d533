# SPDX-License-Identifier: Apache-2.0
"""Controllers in manifests, and what a policy file's ``[[controller]]`` means with them."""

from __future__ import annotations

from typing import Any

import pytest

from emptcp.errors import EmptcpError
from emptcp.plugins import manifest
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.controllers import BoundController, bind
from emptcp.plugins.discovery import ENABLED, Plugin
from emptcp.policy import file

HEAD = 'schema = 1\nname = "loops"\n[[controller]]\nname = "ecf"\nclass = "loops.ecf:Ecf"\n'
PARAMETERS = """end = "sender"
[[controller.parameter]]
name = "beta"
type = "percent"
default = "25%"
[[controller.parameter]]
name = "hold"
type = "time"
[[controller.parameter]]
name = "weights"
type = "list(3)"
of = "rate"
[[controller.parameter]]
name = "mode"
type = "int"
values = { hard = 1, soft = 2 }
required = true
"""


def bound(controller: str) -> BoundController:
    known = manifest.loads(HEAD + PARAMETERS)
    catalog = Catalog([Plugin("loops", "dist-loops", "1", "loops", manifest=known, state=ENABLED)])
    table = file.loads(f'table = "t"\n[[controller]]\nname = "c"\n{controller}\n', "t.toml")
    spec = table.controllers[0]
    return bind(catalog.controller(spec.use, spec.where), spec)


def test_parameters_are_given_to_the_class_in_base_units() -> None:
    found = bound(
        'use = "dist-loops:ecf"\nwith = { mode = "soft", hold = "20ms", weights = ["8mbit", "1kbps"] }'
    )
    assert found.values == {"beta": 0.25, "hold": 0.02, "weights": (1_000_000, 1000), "mode": 2}
    assert found.interval is None
    assert found.type.declaration.entry == "loops.ecf:Ecf"


def test_the_file_says_another_interval_in_seconds() -> None:
    assert bound('use = "ecf"\nwith = { mode = "hard" }\ninterval = "50ms"').interval == 0.05


@pytest.mark.parametrize(
    ("controller", "sentence", "fix"),
    [
        ('use = "efc"\nwith = { mode = "soft" }', "there is no controller 'efc'", "did you mean 'ecf'?"),
        ('use = "ecf"', "controller 'ecf' lacks its parameter 'mode'", "Write with = { [beta="),
        ('use = "ecf"\nwith = { mod = 1 }', "controller 'ecf' has no parameter 'mod'", "did you mean 'mode'"),
        ('use = "ecf"\nwith = { mode = "x" }', "parameter 'mode' of controller 'ecf'", "Write one of"),
        ('use = "ecf"\nsteers = "peer"\nwith = { mode = "soft" }', "'ecf' must run at the sender", '= "us"'),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(controller: str, sentence: str, fix: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        bound(controller)
    assert sentence in caught.value.sentence
    assert fix in caught.value.fix
    assert caught.value.where.startswith("t.toml:")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("loops.ecf:Ecf", "loops.ecf.Ecf"), "names no class"),
        (('end = "sender"', 'end = "hop"'), "works on a hop, where subflows can only be steered"),
        (('class = "loops.ecf:Ecf"\n', ""), "lacks the key 'class'"),
        (('"hold"', '"interval"'), "can't have a parameter 'interval'"),
        (('"sender"', '"middle"'), "'end' of controller 'ecf' can't be 'middle'"),
        (('end = "sender"', 'sets = ["speed"]'), "'sets' of controller 'ecf' can't be 'speed'"),
    ],
)
def test_a_manifest_with_a_broken_controller_is_refused(change: Any, sentence: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        manifest.loads((HEAD + PARAMETERS).replace(*change))
    assert sentence in caught.value.sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[path.p]\nrate = "fast"', "'rate' of path 'p'"),
        ('[path.p]\nlocal = "here"', "'local' of path 'p'"),
        ('[path.p]\nquota = "5x"', "'quota' of path 'p'"),
        ('[path.p]\ndev = "a/b"', "can't be the name of a device"),
        ('[[controller]]\nname = "a b"\nuse = "x"', "can't be the name of a controller"),
        ('[[controller]]\nname = "a"\nuse = "x"\ninterval = "1ms"', "out of range"),
        ('[[controller]]\nname = "a"\nuse = "x"\non_failure = "give up"', "'on_failure' of controller 'a'"),
        ('[[controller]]\nname = "a"\nuse = "x"\npaths = ["q"]', "there is no path 'q'"),
    ],
)
def test_paths_and_controllers_are_validated_like_policies(text: str, sentence: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        file.loads(f'table = "t"\n{text}\n', "t.toml")
    assert sentence in caught.value.sentence
    assert caught.value.where.startswith("t.toml:")
