"""`radixmesh serve`: what happens in which order."""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import socket
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from radixmesh.cli.serve.planning.options import GRPC_OFF, Options, add_arguments, from_args
from radixmesh.shared.errors import ConfigError
from radixmesh.shared.host.signals import on_end_signals

if TYPE_CHECKING:
    from radixmesh.cli.serve.planning.plan import ServedModel, UnitSpec
    from radixmesh.cli.serve.session import Session

__all__ = ["add_arguments", "run"]

LOG = "supervisor.log"

_DRAWS = 20
"""Of free ports, before giving up."""


def run(args: argparse.Namespace) -> int:
    """0 after an orderly end, 1 after a failure.

    Raises:
        ConfigError: a flag is wrong, or a port is in use; nothing has been started.
        ModelLoadError: there is no such model; nothing has been started.
    """
    began = time.monotonic()
    _open_standard_streams()
    from radixmesh.cli.serve.children.prefork import Preforked
    from radixmesh.cli.serve.host import interpreter

    if (folder := interpreter.folder()) is not None:
        os.chdir(folder)
    interpreter.settle_imports()
    options = _with_ports(from_args(args))
    if options.nats_url:
        os.environ["RADIXMESH_NATS_URL"] = options.nats_url  # for children who want to know it while they import
    model, units = _planned(options)
    preforked = Preforked()
    workers = [spec for unit in units if unit.service == "model_worker" for spec in unit.processes]
    if (service := preforked.fork(workers)) is not None:  # at once: they import the longest
        return service.serve()
    os.environ["OMP_NUM_THREADS"] = "1"  # numpy must not start threads before we fork
    from radixmesh.cli.serve.session import Session

    import_module("radixmesh.shared.actor.main")

    others = [spec for unit in units if unit.service != "model_worker" for spec in unit.processes]
    if (service := preforked.fork(others)) is not None:  # with all imported that they and we need
        return service.serve()
    from radixmesh.cli.serve.children.process import LogFile

    log_dir = _log_dir(options)
    _require_state_file(options)
    logging.basicConfig(
        handlers=[LogFile(log_dir / LOG, _tell)],
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(message)s",
    )
    return asyncio.run(_serve(Session(options, model, units, log_dir, preforked, began)))


def _tell(_level: int, line: str) -> bool:
    from radixmesh.cli.serve.display.terminal import Terminal

    Terminal().say(line)
    return True


def _open_standard_streams() -> None:
    """Gives us those that whoever started us has closed: what is opened next would be taken for them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115  for as long as we live
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _planned(options: Options) -> "tuple[ServedModel, list[UnitSpec]]":
    """The model, and the processes to run. Raises ConfigError, ModelLoadError."""
    from radixmesh.cli.serve.host import machine
    from radixmesh.cli.serve.planning.model import choose
    from radixmesh.cli.serve.planning.plan import gateway_ports, plan

    model = choose(options.model, options.served_model_name)
    # On a shared bus two machines must not both call their first replica r0.
    suffix = f"-{socket.gethostname()}-{os.getpid()}" if options.nats_url else ""
    return model, plan(options, model, machine.look(), gateway_ports(options), suffix)


def _with_ports(options: Options) -> Options:
    """Chooses a port where 0 was given, and sees to it that all can be had. Raises ConfigError."""
    from radixmesh.cli.serve.host import machine

    machine.require_host(options.host)
    # A free port's neighbours, which further gateways take, need not be free: then another one is drawn.
    for left in reversed(range(_DRAWS if 0 in (options.port, options.grpc_port) else 1)):
        drawn = dataclasses.replace(
            options,
            port=options.port or machine.free_port(options.host),
            grpc_port=options.grpc_port or machine.free_port(options.host),
        )
        try:
            _require_ports(drawn)
        except ConfigError:
            if not left:
                raise
        else:
            break
    return drawn


def _require_ports(options: Options) -> None:
    """Raises ConfigError unless all ports can be had."""
    from radixmesh.cli.serve.host import machine
    from radixmesh.cli.serve.planning.plan import gateway_ports

    host = options.host
    for http, grpc in gateway_ports(options):
        machine.require_free(host, http, "--port")
        if grpc != GRPC_OFF:
            machine.require_free(host, grpc, "--grpc-port")


def _log_dir(options: Options) -> Path:
    """The directory for logs, made if need be. Raises ConfigError if the one named, or none, can be written."""
    if options.log_dir is not None:
        try:
            return _writable(options.log_dir)
        except OSError as error:
            raise ConfigError(f"--log-dir {options.log_dir}: {error.strerror}") from None
    from radixmesh.cli.serve.supervision import state
    from radixmesh.shared.host.homes import temporary

    name, home = f"serve-{options.port}", state.home()
    with contextlib.suppress(OSError):  # a home that cannot be written, as in many containers
        if home is not None:
            return _writable(home / name)
    try:
        return _writable(temporary() / name)
    except OSError as error:
        raise ConfigError(f"no directory for logs can be written ({error}); name one by --log-dir") from None


def _writable(directory: Path) -> Path:
    """`directory`, made if need be. Raises OSError unless logs can be written there."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / LOG).open("ab").close()
    return directory


def _require_state_file(options: Options) -> None:
    """Raises ConfigError if the state file that was named cannot be written."""
    if options.state_file is not None:
        from radixmesh.cli.serve.supervision import state

        try:
            state.write(options.state_file, {})
            options.state_file.unlink()
        except OSError as error:
            raise ConfigError(f"--state-file {options.state_file}: {error.strerror}") from None


async def _serve(session: "Session") -> int:
    on_end_signals(session.stop)
    return await session.run()
