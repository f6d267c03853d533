# SPDX-License-Identifier: Apache-2.0
"""Manifests: what they say, and what is wrong with them."""

from __future__ import annotations

import pytest

from emptcp.errors import EmptcpError
from emptcp.plugins import manifest
from emptcp.plugins.sharing import Export, Import

HEAD = 'schema = 1\nabi = 1\nname = "x"\nobject = "x.bpf.o"\n'
ACTOR = HEAD + '[[actor]]\nname = "act"\nhooks = ["ingress"]\n'
PARAMETER = ACTOR + "[[actor.parameter]]\n"


def test_what_is_left_out_has_its_usual_value() -> None:
    actor = manifest.loads(ACTOR).stages[0]
    assert (actor.fragment, actor.reads, actor.verdicts) == ("act", ("options",), ("NEXT",))
    assert (actor.unsafe, actor.parameters, actor.companions) == (False, (), ())


def test_every_key_of_a_stage_is_read() -> None:
    found = manifest.loads(
        HEAD
        + 'module = "x.hooks"\nresident = true\n'
        + '[[actor]]\nname="act"\nhelp="h"\nhooks=["ingress","egress"]\nreads=["key"]\nverdicts=["DROP"]\n'
        + 'modifies=["window"]\nunsafe=true\nfragment="f"\nfeatures=["tcx"]\n'
        + '[[actor.companion]]\nhook="egress"\nfragment="g"\n'
        + '[[key]]\nname="k"\nhelp="a key"\nfields=["port","port"]\nsymmetric=true\n'
        + '[[controller]]\nname="c"\nclass="x.loop:C"\nend="sender"\nsets="backup"\n'
        + '[[controller.parameter]]\nname="hold"\ntype="time"\ndefault="1s"\n'
        + '[[command]]\nname="do-it"\n'
    )
    actor = found.stages[0]
    assert (found.module, found.resident, found.object) == ("x.hooks", True, "x.bpf.o")
    assert (actor.help, actor.hooks, actor.reads, actor.verdicts) == (
        "h",
        ("ingress", "egress"),
        ("key",),
        ("DROP",),
    )
    assert (actor.modifies, actor.unsafe, actor.fragment, actor.features) == (
        ("window",),
        True,
        "f",
        ("tcx",),
    )
    assert actor.companions == (manifest.Companion("egress", "g"),)
    loop = found.controllers[0]
    assert (loop.entry, loop.end, loop.sets) == ("x.loop:C", "sender", ("backup",))
    assert loop.parameters[0].default == 10**9
    assert found.provides == ("actor act", "key k", "controller c", "command do-it")


def test_exports_and_imports_are_read() -> None:
    found = manifest.loads(
        HEAD
        + '[[export]]\nmap = "mine"\nhelp = "h"\n[[import]]\nmap = "theirs"\nfrom = "y"\n'
        + '[[import]]\nmap = "mine"\nfrom = "some-dist:y"\nas = "other"\n'
    )
    assert found.exports == (Export("mine", "h"),)
    assert found.imports == (Import("theirs", "y", "theirs"), Import("mine", "some-dist:y", "other"))


def test_bounds_and_defaults_are_written_like_values() -> None:
    found = manifest.loads(PARAMETER + 'name="r"\ntype="rate"\nmin="1mbit"\nmax="1gbit"\ndefault="8mbit"\n')
    parameter = found.stages[0].parameters[0]
    assert (parameter.minimum, parameter.maximum, parameter.default) == (125_000, 125_000_000, 1_000_000)


@pytest.mark.parametrize(
    ("text", "where", "sentence"),
    [
        ('name = "x"\n[[actor]]\nname = "a"\nhooks = ["ingress"]', "", "the manifest lacks the key 'object'"),
        (HEAD + "modul = 1", "5:1", "the manifest has no key 'modul'"),
        (HEAD + 'module = "a-b"', "5:10", "'a-b' is no name of a module"),
        (HEAD + '[[actor]]\nname = "a"\n', "5:3", "actor 'a' lacks the key 'hooks'"),
        (HEAD + '[[actor]]\nname = "not"\nhooks = ["ingress"]', "6:8", "'not' can't be a name"),
        (HEAD + '[[selector]]\nname = "a"\nhooks = []\nverdicts = ["DROP"]', "8:1", "has no key 'verdicts'"),
        (ACTOR + 'verdicts = ["DORP"]', "8:13", "'verdicts' of actor 'act' can't be 'DORP'"),
        (ACTOR + 'modifies = ["window", "windw"]', "8:23", "'modifies' of actor 'act' can't be 'windw'"),
        (ACTOR + 'modifies = ["insert window"]', "8:13", "can't be 'insert window'"),
        (ACTOR + 'modifies = ["remove $kind"]', "8:13", "'modifies' of actor 'act' can't be 'remove $kind'"),
        (ACTOR + 'features = ["tcxx"]', "8:13", "'features' of actor 'act' can't be 'tcxx'"),
        (ACTOR + '[[actor]]\nname = "act"\nhooks = ["egress"]', "", "declares actor 'act' twice"),
        (ACTOR + '[[actor.companion]]\nhook = "egres"\nfragment = "f"', "9:8", "can't be 'egres'"),
        (
            ACTOR + '[[actor.companion]]\nhook = "egress"\nfragment = "f"\nonly = { x = ["y"] }',
            "11:10",
            "'x'",
        ),
        (PARAMETER + 'name = "p"', "8:9", "parameter lacks the key 'type'"),
        (PARAMETER + 'name = "p"\ntype = "pecent"', "10:8", "'pecent' is no type of a parameter"),
        (PARAMETER + 'name = "p"\ntype = "flags"', "8:9", "of type flags has no values"),
        (PARAMETER + 'name = "p"\ntype = "flags"\nvalues = { a = 64 }', "11:16", "64 is out of range"),
        (PARAMETER + 'name = "p"\ntype = "flags"\nvalues = { a = [] }', "11:16", "'a' of 'values'"),
        (PARAMETER + 'name = "p"\ntype = "int"\nmany = true', "11:8", "can't take many values"),
        (PARAMETER + 'name = "p"\ntype = "bool"\nmin = 1', "11:7", "'min' of parameter 'p': '1' is no bool"),
        (PARAMETER + 'name = "p"\ntype = "rate"\ndefault = "1mbt"', "11:11", "has no unit 'mbt'"),
        (PARAMETER + 'name = "p"\ntype = "int"\nmax = 3\ndefault = 4', "12:11", "'4' is out of range"),
        (PARAMETER + 'name = "p"\ntype = "time"\nunit = "m"', "10:8", "'m' is no unit of a packed time"),
        (
            PARAMETER + 'name="p"\ntype="int"\n[[actor.parameter]]\nname="p"\ntype="int"',
            "5:3",
            "parameter 'p' twice",
        ),
        (HEAD + '[[export]]\nhelp = "h"', "5:3", "an export lacks the key 'map'"),
        (HEAD + '[[export]]\nmap = "m"\nkind = 1', "7:1", "an export has no key 'kind'"),
        (HEAD + '[[export]]\nmap = "m"\n[[export]]\nmap = "m"', "8:7", "exports map 'm' twice"),
        (HEAD + '[[export]]\nmap = "a-b"', "6:7", "'a-b' can't be the name of a map"),
        (HEAD + '[[export]]\nmap = "emptcp_flows"', "6:7", "map 'emptcp_flows' is core's"),
        (HEAD + '[[import]]\nmap = "m"', "5:3", "an import lacks the key 'from'"),
        (HEAD + '[[import]]\nmap = "m"\nfrom = "y"\nname = "n"', "8:1", "an import has no key 'name'"),
        (HEAD + '[[import]]\nmap = "m"\nfrom = "y z"', "7:8", "'y z' can't be the name of a plugin"),
        (HEAD + '[[import]]\nmap = "m"\nfrom = "x"', "7:8", "plugin 'x' imports a map from itself"),
        (
            HEAD + '[[import]]\nmap="m"\nfrom="y"\n[[import]]\nmap="n"\nfrom="z"\nas="m"',
            "11:4",
            "imports map 'm' twice",
        ),
        (
            HEAD + '[[export]]\nmap="m"\n[[import]]\nmap="m"\nfrom="y"',
            "7:3",
            "map 'm' is exported and imported",
        ),
        ('name = "x"\n[[export]]\nmap = "m"', "", "the manifest lacks the key 'object'"),
        ('name="p"\n[[key]]\nname="k"', None, "key 'k' lacks the key 'fields'"),
        ('name="p"\n[[key]]\nname="k"\nfields=["prt"]', "4:8", "key 'k': 'prt' is no field of a key"),
        ('name="p"\n[[key]]\nname="k"\nfields=["port"]\nhooks=["ingress"]', None, "hooks"),
        ("schema = 1\nschema = 1", None, "the TOML is broken"),
    ],
)
def test_a_mistake_is_named_and_placed(text: str, where: str | None, sentence: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        manifest.loads(text, "m.toml")
    assert sentence in caught.value.sentence
    if where is not None:
        assert caught.value.where.removeprefix("m.toml").lstrip(":") == where
    assert len(str(caught.value).splitlines()) <= 6
