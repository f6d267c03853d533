# SPDX-License-Identifier: Apache-2.0
"""A folder of installed plugins, as pip leaves them, and an object compiled once for all of them."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emptcp.plugins import state
from emptcp.plugins.discovery import Plugin
from emptcp_sdk.compiler import compile_source, find_compiler

SOURCE = """
#include <emptcp/actor.h>
#include <emptcp/key.h>
#include <emptcp/selector.h>

struct cap {
	__u64 rate;
	__u32 wait;
	__u16 port;
	__u8 on;
	__u8 reserved;
	struct {
		__be32 word[4];
		__u32 bits;
	} net;
	__be32 peer[4];
	__u32 kinds;
	__u32 device;
	__u16 ports[3];
	__u16 ports_len;
	char note[8];
};

struct seen {
	__u64 packets;
};

EMPTCP_ACTOR_STATE(cap, pkt, struct cap, param, struct seen, state)
{
	state->packets += param->on;
	return EMPTCP_NEXT;
}

EMPTCP_COMPANION(note_ack, pkt, struct seen, state)
{
	state->packets++;
}

EMPTCP_KEY(cap_key, pkt, struct seen, key)
{
	key->packets = pkt->parsed->payload_len;
	return true;
}

EMPTCP_SELECTOR(is_capped, pkt, void, param)
{
	return true;
}
"""

MANIFEST = """
schema = 1
abi = 1
name = "{name}"
summary = "cap what a subflow may send"
object = "{name}.bpf.o"
module = "{package}.hooks"

[[selector]]
name = "is_{name}ped"
fragment = "is_capped"
hooks = ["ingress", "egress"]
reads = ["key"]

[[actor]]
name = "{name}"
fragment = "cap"
help = "cap the rate"
hooks = ["ingress"]

[[actor.parameter]]
name = "rate"
type = "rate"
required = true
min = "1mbit"
max = "1gbit"
help = "the most it may send"

[[actor.parameter]]
name = "wait"
type = "time"
unit = "us"
default = "20ms"

[[actor.parameter]]
name = "port"
type = "port"

[[actor.parameter]]
name = "on"
type = "bool"
default = true

[[actor.parameter]]
name = "net"
type = "prefix"

[[actor.parameter]]
name = "peer"
type = "ipaddr"

[[actor.parameter]]
name = "device"
type = "dev"

[[actor.parameter]]
name = "note"
type = "string(8)"

[[actor.parameter]]
name = "ports"
type = "list(3)"
of = "port"

[[actor.parameter]]
name = "kinds"
type = "flags"
values = {{ syn = 0, ack = 1, both = [0, 1] }}
many = true

[[actor.companion]]
hook = "egress"
fragment = "note_ack"

[[key]]
name = "{name}_key"
fragment = "cap_key"
fields = ["int", "port", "port"]

[[command]]
name = "caps"
help = "print the caps"
"""

HOOKS = """
from pathlib import Path
from emptcp.api import hookimpl

Path(__file__).with_name("imported").touch()

@hookimpl
def emptcp_format(stage):
    return "{name} says"
"""


@dataclass
class Site:
    """A folder like site-packages."""

    folder: Path
    object: Path

    def add(
        self,
        name: str = "cap",
        *,
        distribution: str = "",
        package: str = "",
        version: str = "1.0",
        manifest: str = "",
        entry: str = "",
        editable: bool = False,
        with_object: bool = True,
    ) -> Path:
        """Install a plugin and return its package's folder."""
        distribution = distribution or f"someones-{name}"
        # Never a name of the project's own packages: what is imported already would be found in its place.
        package = package or f"someones_{distribution.removeprefix('someones-').replace('-', '_')}"
        root = self.folder / package
        root.mkdir(exist_ok=True)
        Path(root, "__init__.py").write_text(
            "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"
        )
        Path(root, "hooks.py").write_text(HOOKS.format(name=name))
        Path(root, "emptcp.toml").write_text(manifest or MANIFEST.format(name=name, package=package))
        if with_object:
            Path(root, f"{name}.bpf.o").write_bytes(self.object.read_bytes())
        self._describe(distribution, version, f"{name} = {entry or package}", root, editable)
        importlib.invalidate_caches()
        return root

    def _describe(self, distribution: str, version: str, point: str, root: Path, editable: bool) -> None:
        stem = distribution.replace("-", "_")
        for old in self.folder.glob(f"{stem}-*.dist-info"):
            old.rename(self.folder / f"{old.name}.gone")
        info = self.folder / f"{stem}-{version}.dist-info"
        info.mkdir()
        Path(info, "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        Path(info, "entry_points.txt").write_text(f"[emptcp.plugins]\n{point}\n")
        if editable:
            Path(info, "direct_url.json").write_text(
                json.dumps({"url": "file:///x", "dir_info": {"editable": True}})
            )
        files = [*sorted(info.iterdir()), *([] if editable else sorted(root.iterdir()))]
        Path(info, "RECORD").write_text("".join(f"{self._recorded(path)}\n" for path in files))

    def _recorded(self, path: Path) -> str:
        content = path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        return f"{path.relative_to(self.folder).as_posix()},sha256={digest},{len(content)}"

    def remove(self, distribution: str) -> None:
        """Uninstall a distribution's metadata."""
        for info in self.folder.glob(f"{distribution.replace('-', '_')}-*.dist-info"):
            info.rename(self.folder / f"{info.name}.gone")

    def row(self, distribution: str = "someones-cap", **in_use: list[str]) -> Plugin:
        """Return the one plugin of a distribution as it is judged now."""
        found = [plugin for plugin in state.judged(in_use) if plugin.distribution == distribution]
        assert len(found) == 1, found
        return found[0]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an object with an actor, its companion and a selector."""
    folder = tmp_path_factory.mktemp("object")
    source = folder / "cap.bpf.c"
    source.write_text(SOURCE)
    compile_source(find_compiler(), source, folder / "cap.bpf.o")
    return folder / "cap.bpf.o"


@pytest.fixture
def site(tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return an empty folder of plugins that Python finds first, with settings of its own."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("EMPTCP_ETC", str(tmp_path / "etc"))
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield Site(folder, compiled)
    for name in set(sys.modules) - before:
        if name.startswith("someones"):
            del sys.modules[name]
