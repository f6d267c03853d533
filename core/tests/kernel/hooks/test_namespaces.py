# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
import subprocess
import threading

import pytest

from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace

pytestmark = pytest.mark.kernel


def names(namespace: Namespace) -> set[str]:
    return {name for _, name in namespaces.call(namespace, socket.if_nameindex)}


def test_a_namespace_is_found_by_name_path_and_pid(host: Namespace) -> None:
    by_path = namespaces.resolve(f"/run/netns/{host.name}")
    with subprocess.Popen(["ip", "netns", "exec", host.name, "sleep", "20"]) as sleeper:
        try:
            # `ip` enters the namespace a moment after it started.
            for _ in range(200):
                if namespaces.resolve(sleeper.pid).cookie == host.cookie:
                    break
            assert namespaces.resolve(str(sleeper.pid)).cookie == host.cookie
        finally:
            sleeper.kill()
    assert by_path.cookie == host.cookie != namespaces.resolve().cookie
    assert str(host) == host.name


def test_work_sees_the_namespaces_devices_and_the_process_stays_where_it_is(host: Namespace) -> None:
    before = os.stat("/proc/self/ns/net").st_ino
    assert names(host) == {"lo", "left", "right", "tun0", "tap0", "br0"}
    assert os.stat("/proc/thread-self/ns/net").st_ino == before == os.stat("/proc/self/ns/net").st_ino


def test_a_socket_made_inside_goes_on_working_outside(host: Namespace) -> None:
    def make() -> tuple[socket.socket, socket.socket]:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
        server = socket.create_server(("127.0.0.1", 0))
        return server, socket.create_connection(server.getsockname(), timeout=5)

    server, client = namespaces.call(host, make)
    with server, client, server.accept()[0] as accepted:
        client.sendall(b"ping")
        assert accepted.recv(4) == b"ping"


def test_several_pieces_of_work_run_in_one_thread(host: Namespace) -> None:
    with namespaces.inside(host) as run:
        assert run(threading.get_ident) == run(threading.get_ident) != threading.get_ident()


def test_namespaces_can_be_nested_and_do_not_mix(host: Namespace) -> None:
    outer = namespaces.resolve()
    assert namespaces.call(host, lambda: names(outer)) == names(outer) != names(host)


def test_what_fails_inside_is_raised_outside(host: Namespace) -> None:
    with pytest.raises(OSError, match="no-such-device"):
        namespaces.call(host, lambda: (_ for _ in ()).throw(OSError("no-such-device")))


def test_an_unknown_name_gets_a_suggestion(host: Namespace) -> None:
    with pytest.raises(EmptcpError, match=f"there is no network namespace '{host.name}x'") as caught:
        namespaces.resolve(f"{host.name}x")
    assert caught.value.fix == f"Did you mean '{host.name}'?"


def test_a_refusal_lists_some_names_of_many(tmp_path, monkeypatch) -> None:
    for number in range(40):
        (tmp_path / f"name{number:02}").touch()
    monkeypatch.setattr(namespaces, "NAMED", tmp_path)
    with pytest.raises(EmptcpError) as caught:
        namespaces.resolve("elsewhere")
    assert "name00" in caught.value.fix
    assert caught.value.fix.endswith("and 32 more.")


def test_a_file_that_is_no_namespace_is_refused(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmptcpError, match="is no network namespace"):
        namespaces.resolve(tmp_path / "file")
