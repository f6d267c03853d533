# SPDX-License-Identifier: Apache-2.0
"""How the guest of the VM lanes is put together: archive, module order, its output, refusals."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VM = ROOT / "tests/vm"
sys.path.insert(0, str(VM))
try:
    from lane import apt, cpio, debian, environment, foreign, machine, modules, releases, selection
    from lane.architectures import ARM64
    from lane.refusal import Refusal
finally:
    sys.path.remove(str(VM))


def entries(raw: bytes) -> dict[str, tuple[int, bytes]]:
    """Read an archive back: name -> mode and content."""
    found, at = {}, 0
    while True:
        assert raw[at : at + 6] == b"070701"
        fields = [int(raw[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = raw[at + 110 : at + 110 + length - 1].decode()
        content = at + (110 + length + 3) // 4 * 4
        if name == cpio.END:
            return found
        assert name not in found
        found[name] = (mode, raw[content : content + size])
        at = content + (size + 3) // 4 * 4


@contextmanager
def packed() -> Iterator[tuple[cpio.Archive, dict[str, tuple[int, bytes]]]]:
    """Yield an archive to fill, and what is in it afterwards."""
    out, found = io.BytesIO(), dict[str, tuple[int, bytes]]()
    archive = cpio.Archive(out)
    yield archive, found
    archive.close()
    found.update(entries(out.getvalue()))


def test_a_copied_file_brings_its_folders_and_the_links_that_lead_to_it(tmp_path: Path) -> None:
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "real/deep/file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/alias").symlink_to("deep/file")
    with packed() as (archive, found):
        for name in ("link/deep/file", "link/alias", "real/deep/file"):
            archive.copy(tmp_path / name)
    base = str(tmp_path).lstrip("/")
    assert found[f"{base}/link"] == (0o120777, b"real")
    assert found[f"{base}/real/alias"] == (0o120777, b"deep/file")
    assert found[f"{base}/real/deep/file"][1] == b"abc"
    assert found[f"{base}/real/deep"][0] == 0o40755
    assert list(found).index(f"{base}/real") < list(found).index(f"{base}/real/deep/file")


def test_what_was_unpacked_for_the_guest_has_its_folder_for_its_root(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/dash").write_bytes(b"abc")
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "sh").symlink_to("/bin/dash")
    with packed() as (archive, found):
        for path in environment.below(tmp_path):
            archive.move(path, tmp_path)
    assert set(found) == {"bin", "sh", "usr", "usr/bin", "usr/bin/dash"}
    assert (found["bin"], found["sh"]) == ((0o120777, b"usr/bin"), (0o120777, b"/bin/dash"))
    assert found["usr/bin/dash"][1] == b"abc"


def test_another_processor_gets_this_environment_with_nothing_that_was_compiled_for_this_one(
    tmp_path: Path,
) -> None:
    files = environment.files()
    (tmp_path / foreign.PYTHON / "usr/share").mkdir(parents=True)
    (tmp_path / foreign.PYTHON / "usr/share/unused").touch()
    (tmp_path / "wheels").mkdir()
    ours = [
        one
        for one in environment.distributions()
        if any(map(environment.compiled, environment.belonging(one)))
    ]
    for one in ours:
        kept = tmp_path / "wheels" / f"{foreign.PYTHON}-{one.name}=={one.version}.whl"
        with zipfile.ZipFile(kept, "w") as wheel:
            wheel.writestr(f"{one.name}/part.foreign.so", "theirs")
            wheel.writestr(f"{one.name}/part.py", "theirs")
    with packed() as (archive, found):
        foreign.add(archive, files, ARM64, tmp_path)
    compiled = [name for name in found if environment.compiled(Path(name))]
    assert "cffi" in {one.name for one in ours}
    assert len(compiled) == len(ours)
    assert all(found[name][1] == b"theirs" for name in compiled)
    assert found[sys.executable.lstrip("/")] == (0o120777, f"/usr/bin/{foreign.PYTHON}".encode())
    plain = {str(path).lstrip("/") for path in files if not environment.compiled(path)}
    assert plain <= set(found)
    assert "usr/share/unused" not in found


def test_the_tables_of_a_lane_have_packets_of_every_selector_and_actor() -> None:
    own = {path.split("/")[1] for path in selection.tables()}
    assert own >= {
        path.name for kind in ("actor", "selector") for path in (ROOT / "plugins").glob(f"{kind}-*")
    }


def test_every_file_that_is_left_out_as_no_table_is_there() -> None:
    there = {path.stem.removeprefix("test_") for path in (ROOT / "plugins").glob("*/tests/kernel/test_*.py")}
    assert there >= set(selection.NO_TABLES)


def test_a_wheel_that_is_not_to_be_had_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Refusal, match=r"pip can't get cffi==0\.1 for aarch64: .*cffi") as refused:
        foreign._wheel("cffi==0.1", ARM64, tmp_path)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_modules_come_behind_what_they_need_and_each_once() -> None:
    needs = {"a": ["c", "b"], "b": ["c"], "c": [], "d": ["a"]}
    order = modules.in_order(["d", "a", "c"], needs.__getitem__)
    assert order == ["c", "b", "a", "d"]


def test_the_guests_exit_code_is_read_from_its_last_line_however_it_is_cut() -> None:
    shown: list[str] = []
    guest = machine.Guest(shown.append)
    assert (guest.booted, guest.code) == (False, None)
    for part in (b"guest: Li", b"nux 6.1\r\none li", b"ne\nguest: ex", b"it 3\n"):
        guest.take(part)
    assert (guest.booted, guest.code) == (True, 3)
    assert shown == ["guest: Linux 6.1", "one line"]


def test_a_guest_that_says_nothing_or_goes_on_forever_is_ended() -> None:
    for script, said in (("sleep 60", []), ("echo 'guest: Linux'; sleep 60", ["guest: Linux"])):
        shown: list[str] = []
        guest = machine.follow(["sh", "-c", script], shown.append, limit=0.6, boot=0.3)
        assert guest.code is None
        assert shown[:-1] == said
        assert shown[-1].startswith("the guest was ended")


def test_an_unknown_kernel_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refusal, match=r"'2\.4'.* 5\.10, 6\.1"):
        releases.release("2.4")


@pytest.mark.parametrize(("name", "package"), [("6.1", "qemu-system-x86"), ("arm64", "qemu-system-arm")])
def test_without_qemu_the_lane_is_refused_by_name_of_the_package(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    kernel = debian.Kernel("6.1", Path("image"), Path("modules"))
    with pytest.raises(Refusal, match=rf"package {package}\)"):
        machine.boot(releases.release(name), kernel, Path("files"), Path("console"), print)


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt to ask")
def test_a_mirror_that_can_not_be_reached_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "_mirror", lambda: "http://127.0.0.1:9/debian")
    with pytest.raises(Refusal, match="apt can't get packages for amd64 from Debian's bookworm") as refused:
        debian.kernel(releases.release("6.1"), tmp_path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "kernel").exists()


@pytest.mark.parametrize("words", [["2.4"], [], ["--", "-c", "pass"]])
def test_the_command_refuses_with_one_sentence_and_code_2(words: list[str]) -> None:
    command = [sys.executable, str(VM), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("vm: ")
    assert len(done.stderr.splitlines()) == 1
