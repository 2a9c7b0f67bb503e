"""Ports, hosts, cores and accelerators of this machine."""

import os
import socket

import pytest

from radixmesh.cli import main
from radixmesh.cli.serve.host import machine
from radixmesh.shared.errors import ConfigError


def test_a_port_in_use_is_named_with_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} .*in use.*--grpc-port"):
            machine.require_free("127.0.0.1", port, "--grpc-port")
    machine.require_free("127.0.0.1", port, "--grpc-port")


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--host 192\.0\.2\.1: not an address"):
        machine.require_host("192.0.2.1")


def test_the_machine_has_cores() -> None:
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("2,3", 2), ("GPU-12,GPU-34", 2)])
def test_accelerators_that_are_hidden_do_not_count(monkeypatch: pytest.MonkeyPatch, visible: str, count: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.accelerators() == count


@pytest.mark.parametrize("host", ["example.invalid", "a b", f"{'a' * 70}.example", "[::1]", "1.2.3.4.5"])
def test_a_host_that_there_is_not_is_named_with_the_reason(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    for ports in ((), ("--port", "0", "--grpc-port", "0")):
        assert main(["serve", "--host", host, *ports]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"radixmesh serve: --host {host}: ")
        assert "error -" not in said
        assert said.count("\n") == 1
