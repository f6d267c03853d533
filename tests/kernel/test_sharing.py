# SPDX-License-Identifier: Apache-2.0
"""What stages of two distributions share: a packet's scratch, and a map that one exports to the other."""

from __future__ import annotations

import importlib
import json
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emptcp import pybpf
from emptcp.chain import pins, running
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.lab.namespace import ip_batch
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file
from emptcp_sdk.compiler import compile_source, find_compiler

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

SOURCES = Path(__file__).parent / "sharing"
DISTRIBUTIONS = {"classifier": "someones-classifier", "consumer": "others-consumer"}
PROJECT = """
[build-system]
requires = ["hatchling", "emptcp-sdk"]
build-backend = "hatchling.build"
[project]
name = "{distribution}"
version = "1.0"
dependencies = ["emptcp>=0.1"]
[project.entry-points."emptcp.plugins"]
{plugin} = "{package}"
[tool.hatch.build.targets.wheel]
packages = ["src/{package}"]
hooks.emptcp = {{}}
"""
ENGINES = ("fused", "tail")
PLACES = (("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc"))
DATA = build(options=[Dss(data_ack=7, dsn=7, subflow_seq=1, data_length=3)], payload=b"abc")
OTHER = build(options=[Dss(data_ack=7)], sport=40001)
PLAIN = build(payload=b"plain TCP")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which pip installed both, each built from sources of its own by the SDK's hook."""
    folder = tmp_path_factory.mktemp("sharing")
    for plugin, distribution in DISTRIBUTIONS.items():
        package = distribution.replace("-", "_")
        source = folder / distribution / "src" / package
        source.mkdir(parents=True)
        for name in (f"{plugin}.bpf.c", "classes.h"):
            shutil.copy(SOURCES / name, source)
        shutil.copy(SOURCES / f"{plugin}.toml", source / "emptcp.toml")
        (source / "__init__.py").touch()
        text = PROJECT.format(distribution=distribution, plugin=plugin, package=package)
        (folder / distribution / "pyproject.toml").write_text(text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(folder / "site")]
    command += [str(folder / distribution) for distribution in DISTRIBUTIONS.values()]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    return folder / "site"


class Site:
    """Both distributions as they are installed for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def package(self, plugin: str) -> Path:
        """Return the folder of a plugin's package."""
        return self.folder / DISTRIBUTIONS[plugin].replace("-", "_")

    def release(self, plugin: str, *changes: tuple[str, str]) -> None:
        """Put another release in a plugin's place: its object, compiled with changes to its own sources."""
        work = self.folder / f"work-{plugin}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for name in (f"{plugin}.bpf.c", "classes.h"):
            text = (SOURCES / name).read_text()
            for old, new in changes:
                text = text.replace(old, new)
            (work / name).write_text(text)
        compile_source(find_compiler(), work / f"{plugin}.bpf.c", work / f"{plugin}.bpf.o")
        shutil.copy(work / f"{plugin}.bpf.o", self.package(plugin))

    def declare(self, plugin: str, old: str, new: str) -> None:
        """Change a plugin's manifest."""
        manifest = self.package(plugin) / "emptcp.toml"
        text = manifest.read_text()
        assert old in text
        manifest.write_text(text.replace(old, new))


@pytest.fixture
def site(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Both distributions, found by discovery and not enabled, in an installation of the test's own."""
    folder = tmp_path / "site"
    shutil.copytree(wheels, folder)
    monkeypatch.setenv("EMPTCP_ETC", str(tmp_path / "etc"))
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    yield Site(folder)
    for name in [name for name in sys.modules if name.startswith(("someones_classifier", "others_consumer"))]:
        del sys.modules[name]


@pytest.fixture
def both(site: Site, emptcp: Callable[..., Any]) -> Site:
    """Both distributions, enabled."""
    for plugin in DISTRIBUTIONS:
        said = emptcp("plugins", "enable", plugin)
        assert said.code == 0, said.err
    return site


def table(
    *policies: tuple[str, tuple[str, ...]],
    name: str = "shared",
    engine: str = "fused",
    hook: str = "ingress",
    dev: str = "left0",
    backend: str = "auto",
) -> str:
    """Return a table of policies, each a ``when`` and its actors."""
    head = f'table = "{name}"\nengine = "{engine}"\n'
    return head + "".join(
        f'[[policy]]\nname = "p{number}"\nhook = "{hook}"\ndev = "{dev}"\n'
        + (f'backend = "{backend}"\n' if hook == "ingress" else "")
        + (f'when = "{when}"\n' if when else "")
        + f"do = {json.dumps(list(do))}\n"
        for number, (when, do) in enumerate(policies)
    )


def runner(text: str, hook: str, backend: str) -> Runner:
    """Load a table's policies for trial."""
    made, catalog = file.loads(text), Catalog.of_enabled()
    bound = [bind(made, one, hook, catalog) for one in made.policies]
    return Runner(bound, hook, backend, engine=made.engine)


def looks(seen: pybpf.Map) -> tuple[int, ...]:
    """Return how often ``look`` found the scratch empty, marked as it wants, or otherwise."""
    return struct.unpack("=3Q", seen.lookup(bytes(4)) or b"")


# On single packets (BPF_PROG_TEST_RUN)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("hook", "backend"), PLACES)
def test_a_stage_reads_what_another_distributions_stage_wrote_for_this_packet(
    both: Site, engine: str, hook: str, backend: str
) -> None:
    text = table(
        ("", ("look(number=7)", "classify(number=7)", "look(number=7)")),
        ("of_class(number=7)", ("look(number=7)",)),
        ("of_class(number=8)", ("look(number=7)",)),
        engine=engine,
        hook=hook,
    )
    with runner(text, hook, backend) as made:
        for number in range(1, 4):
            assert made.run(DATA if number % 2 else OTHER).matched == ("p0", "p1")
            # The first look is before the classifier: whatever the packet before left, it is gone.
            assert looks(made.map("seen")) == (number, 2 * number, 0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("hook", "backend"), PLACES)
def test_a_stage_reads_the_map_that_another_distribution_exports(
    both: Site, engine: str, hook: str, backend: str
) -> None:
    text = table(
        ("in_class(number=7)", ("look(number=7)",)),
        ("not in_class(number=7)", ("classify(number=7)",)),
        engine=engine,
        hook=hook,
    )
    with runner(text, hook, backend) as made:
        assert made.run(DATA).matched == ("p1",)
        assert made.run(OTHER).matched == ("p1",)
        assert made.run(DATA).matched == ("p0",)
        assert made.run(OTHER).matched == ("p0",)
        assert [struct.unpack("=II", value) for _, value in made.map("classes").items()] == [(7, 1), (7, 1)]


def test_the_importing_stage_alone_finds_the_map_empty_and_as_large_as_its_owner_says(both: Site) -> None:
    with runner(table(("in_class(number=7)", ("look(number=7)",))), "ingress", "xdp") as made:
        assert made.run(DATA).matched == ()
        assert made.map("known_classes").info.max_entries == 64


# With real packets


@pytest.fixture
def wire(netns: Callable[[], str]) -> str:
    """Return a namespace with the cable left0-right0, up."""
    where = netns()
    ip_batch(["link set left0 up", "link set right0 up"], netns=where)
    return where


def send(netns: str, device: str, *frames: bytes) -> None:
    """Send frames out of a device."""

    def run() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((device, 0))
            for frame in frames:
                sender.send(frame)

    namespaces.call(namespaces.resolve(netns), run)


@pytest.fixture
def apply(emptcp: Callable[..., Any], write: Callable[..., str], wire: str) -> Callable[..., Any]:
    """Return what applies a text in the wire's namespace: -> how the command ended."""
    return lambda text: emptcp("apply", write(text), "--netns", wire)


def pinned(plugin: str, name: str) -> pybpf.Map:
    """Return a plugin's map by its pin."""
    tree = pins.find()
    assert tree is not None
    return pybpf.Map.from_pin(tree.plugin_map(plugin, name))


def maps_of(device: str) -> set[int]:
    """Return the ids of the maps that a device's program uses, by itself and by what it calls."""
    (one,) = (one for one in running.everything().values() if one.description.device == device)
    found = set(one.program.info.map_ids)
    for number in one.program.info.map_ids:
        with pybpf.Map.from_id(number) as used:
            if used.info.kind == "prog_array":
                for _, value in used.items():
                    found |= set(pybpf.Program.from_id(int.from_bytes(value, "little")).info.map_ids)
    return found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", ["xdp", "tc"])
def test_packets_on_a_wire_are_classified_by_one_and_selected_by_the_other(
    both: Site, apply: Callable[..., Any], wire: str, engine: str, backend: str
) -> None:
    text = table(
        ("", ("look(number=3)", "classify(number=3)")),
        ("of_class(number=3) and in_class(number=3)", ("look(number=3)",)),
        engine=engine,
        backend=backend,
    )
    said = apply(text)
    assert said.code == 0, said.err
    send(wire, "right0", DATA, PLAIN, DATA, OTHER)
    with pinned("consumer", "seen") as seen, pinned("classifier", "classes") as classes:
        assert looks(seen) == (3, 3, 0)
        assert sorted(struct.unpack("=II", value) for _, value in classes.items()) == [(3, 1), (3, 2)]


@pytest.mark.parametrize("engine", ENGINES)
def test_two_programs_and_what_is_applied_later_have_one_map_and_its_contents_stay(
    both: Site, apply: Callable[..., Any], wire: str, engine: str
) -> None:
    # The importer first: it makes the map, pinned under the exporter's name.
    consumer = table(
        ("in_class(number=3)", ("look(number=3)",)), name="importer", dev="right0", engine=engine
    )
    assert apply(consumer).code == 0
    with pinned("classifier", "classes") as classes:
        number, entries = classes.id, classes.info.max_entries
    assert entries == 64
    classifying = table(("", ("classify(number=3)",)), name="exporter", engine=engine)
    assert apply(classifying).code == 0
    assert number in maps_of("left0") & maps_of("right0")
    send(wire, "right0", DATA)
    send(wire, "left0", DATA)
    with pinned("consumer", "seen") as seen:
        assert sum(looks(seen)) == 1
    more = table(("", ("classify(number=4)", "classify(number=5)")), name="exporter", engine=engine)
    assert apply(more).code == 0
    assert number in maps_of("left0") & maps_of("right0")
    with pinned("classifier", "classes") as classes:
        assert classes.id == number
        assert [struct.unpack("=II", value) for _, value in classes.items()] == [(3, 1)]


# What is refused


WIDER = ("__u32 packets;", "__u32 bytes;\n\t__u64 packets;")
FIELDS = (
    "value size: 8 here, 16 there; "
    "value: struct traffic_class (8 bytes) here, struct traffic_class (16 bytes) there; "
    "value.packets: __u32 (4 bytes at byte 4) here, __u64 (8 bytes at byte 8) there; "
    "value.bytes: absent here, __u32 (4 bytes at byte 4) there"
)


def test_an_import_whose_exporter_is_not_enabled_is_refused_with_the_fix(
    site: Site, emptcp: Callable[..., Any]
) -> None:
    said = emptcp("plugins", "enable", "consumer")
    assert (said.code, "imports map 'classes' from 'classifier', which is found" in said.err) == (1, True)
    assert "Run: emptcp plugins enable classifier" in said.err
    assert emptcp("plugins", "enable", "classifier").code == 0
    assert emptcp("plugins", "enable", "consumer").code == 0


def test_disabling_the_exporter_stops_what_imports_from_it(
    both: Site, emptcp: Callable[..., Any], apply: Callable[..., Any]
) -> None:
    assert emptcp("plugins", "disable", "classifier").code == 0
    said = apply(table(("in_class(number=3)", ("look(number=3)",))))
    assert said.code == 1
    assert "policy.toml:8:9: selector 'in_class': plugin 'consumer' imports map 'classes'" in said.err
    assert "which is disabled" in said.err
    doctor = emptcp("doctor")
    assert doctor.code == 1
    assert "plugin 'consumer' imports map 'classes' from 'classifier', which is disabled" in doctor.out


def test_an_import_of_what_is_not_exported_is_refused(site: Site, emptcp: Callable[..., Any]) -> None:
    site.declare("classifier", 'map = "classes"', 'map = "klasses"')
    said = emptcp("plugins", "enable", "classifier")
    assert (said.code, "exports map 'klasses', which classifier.bpf.o does not define" in said.err) == (
        1,
        True,
    )
    assert "did you mean 'classes'?" in said.err
    site.declare("classifier", 'map = "klasses"', 'map = "classes"')
    assert emptcp("plugins", "enable", "classifier").code == 0
    site.declare("consumer", 'map = "classes"', 'map = "class"')
    said = emptcp("plugins", "enable", "consumer")
    assert (said.code, "which does not export it" in said.err) == (1, True)
    assert "did you mean 'classes'?" in said.err


def test_an_exporter_that_is_made_anew_is_compared_field_by_field(
    both: Site, emptcp: Callable[..., Any], apply: Callable[..., Any]
) -> None:
    both.release("classifier", WIDER)
    assert emptcp("plugins", "enable", "classifier").code == 0
    said = apply(table(("in_class(number=3)", ("look(number=3)",))))
    assert said.code == 1
    assert f"and they differ: {FIELDS}\n" in said.err
    assert "Install releases of 'consumer' and 'classifier' that go together." in said.err


def test_a_map_in_use_that_is_made_otherwise_is_reported_and_never_reused(
    both: Site, emptcp: Callable[..., Any], apply: Callable[..., Any], wire: str
) -> None:
    first = table(("", ("classify(number=3)",)), name="exporter")
    second = table(("in_class(number=3)", ("look(number=3)",)), name="importer", dev="right0")
    assert [apply(text).code for text in (first, second)] == [0, 0]
    send(wire, "right0", DATA)
    with pinned("classifier", "classes") as classes:
        number = classes.id
    for plugin in DISTRIBUTIONS:
        both.release(plugin, WIDER)
        assert emptcp("plugins", "enable", plugin).code == 0
    said = apply(first.replace("number=3", "number=4"))
    assert said.code == 1
    assert "the map 'classes' of plugin 'classifier' that is in use, pinned at" in said.err
    assert "value.packets: __u64 (8 bytes at byte 8) here, __u32 (4 bytes at byte 4) there" in said.err
    assert "value.bytes: __u32 (4 bytes at byte 4) here, absent there" in said.err
    assert "Run `emptcp remove exporter` and `emptcp remove importer`, then apply again" in said.err
    with pinned("classifier", "classes") as classes:
        assert (classes.id, len(list(classes.items()))) == (number, 1)
    assert [emptcp("remove", name).code for name in ("exporter", "importer")] == [0, 0]
    assert [apply(text).code for text in (first, second)] == [0, 0]
    send(wire, "right0", DATA)
    with pinned("classifier", "classes") as classes:
        assert [struct.unpack("=IIQ", value) for _, value in classes.items()] == [(3, 0, 1)]


def test_a_map_that_no_table_uses_any_more_makes_room_for_its_successor(
    both: Site, emptcp: Callable[..., Any], apply: Callable[..., Any]
) -> None:
    kept = table(("packet_type('data')", ("record('packets')",)), name="other", dev="right0")
    mine = table(("", ("classify(number=3)",)), name="exporter")
    assert [apply(text).code for text in (kept, mine)] == [0, 0]
    assert emptcp("remove", "exporter").code == 0
    both.release("classifier", WIDER)
    assert emptcp("plugins", "enable", "classifier").code == 0
    said = apply(mine)
    assert said.code == 0, said.err
    with pinned("classifier", "classes") as classes:
        assert classes.info.value_size == 16


def test_a_map_of_emptcp_itself_that_another_release_made_is_reported(
    both: Site, apply: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert apply(table(("", ("record('rtt')",)), name="old")).code == 0
    monkeypatch.setattr("emptcp.chain.shared.FLOWS", 32768)
    said = apply(table(("", ("classify(number=3)", "record('rtt')")), name="old"))
    assert said.code == 1
    assert "the map 'flows' of emptcp that is in use" in said.err
    assert "entries: 32768 here, 16384 there" in said.err
    assert "Run `emptcp remove old`, then apply again" in said.err


def test_info_tells_what_is_exported_and_imported(both: Site, emptcp: Callable[..., Any]) -> None:
    told = emptcp("plugins", "info", "classifier").out + emptcp("plugins", "info", "consumer").out
    assert "\nexports map classes: subflow to struct traffic_class" in told
    assert "\nimports map classes of classifier as known_classes\n" in told
    exporter = json.loads(emptcp("plugins", "info", "classifier", "--json").out)
    importer = json.loads(emptcp("plugins", "info", "consumer", "--json").out)
    assert [one["map"] for one in exporter["exports"]] == ["classes"]
    assert importer["imports"] == [{"map": "classes", "from": "classifier", "as": "known_classes"}]


def test_a_plugin_can_name_the_distribution_it_imports_from(site: Site, emptcp: Callable[..., Any]) -> None:
    assert emptcp("plugins", "enable", "classifier").code == 0
    site.declare("consumer", 'from = "classifier"', 'from = "someones-classifier:classifier"')
    assert emptcp("plugins", "enable", "consumer").code == 0
    site.declare("consumer", "someones-classifier:", "strangers-classifier:")
    said = emptcp("plugins", "enable", "consumer")
    assert "imports map 'classes' from 'strangers-classifier:classifier', which is not installed" in said.err


def test_the_catalog_refuses_a_stage_whose_import_is_gone(both: Site) -> None:
    both.declare("classifier", "[[export]]", "[[export]]\n# gone")
    with pytest.raises(EmptcpError, match="imports map 'classes' from 'classifier', which is changed"):
        runner(table(("in_class(number=7)", ("look(number=7)",))), "ingress", "xdp")
