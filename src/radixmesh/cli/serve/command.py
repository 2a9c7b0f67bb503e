"""`radixmesh serve`: what happens in which order."""

import argparse
import asyncio
import dataclasses
import logging
import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from radixmesh.cli.serve.options import GRPC_OFF, Options, add_arguments, from_args
from radixmesh.shared.errors import ConfigError

if TYPE_CHECKING:
    from radixmesh.cli.serve.plan import Model, UnitSpec
    from radixmesh.cli.serve.session import Session

__all__ = ["add_arguments", "run"]

_DRAWS = 20
"""Of free ports, before giving up."""


def run(args: argparse.Namespace) -> int:
    """0 after an orderly end, 1 after a failure.

    Raises:
        ConfigError: a flag is wrong, or a port is in use; nothing has been started.
        ModelLoadError: there is no such model; nothing has been started.
    """
    began = time.monotonic()
    from radixmesh.cli.serve.reserve import Reserve

    options = _with_ports(from_args(args))
    if options.nats_url:
        os.environ["RADIXMESH_NATS_URL"] = options.nats_url  # for children who want to know it while they import
    model, units = _what(options)
    reserve = Reserve()
    workers = [spec for unit in units if unit.service == "model_worker" for spec in unit.processes]
    if (post := reserve.fork(workers)) is not None:  # at once: they import the longest
        return post.serve()
    os.environ["OMP_NUM_THREADS"] = "1"  # numpy must not start threads before we fork
    from radixmesh.cli.serve.session import Session
    from radixmesh.shared import process  # noqa: F401

    others = [spec for unit in units if unit.service != "model_worker" for spec in unit.processes]
    if (post := reserve.fork(others)) is not None:  # with all imported that they and we need
        return post.serve()
    log_dir = _log_dir(options)
    logging.basicConfig(
        filename=log_dir / "supervisor.log",
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(message)s",
    )
    with tempfile.TemporaryDirectory(prefix="radixmesh-") as private:
        session = Session(options, model, units, log_dir, Path(private), reserve, began)
        return asyncio.run(_serve(session))


def _what(options: Options) -> "tuple[Model, list[UnitSpec]]":
    """The model, and the processes to run. Raises ConfigError, ModelLoadError."""
    from radixmesh.cli.serve import machine
    from radixmesh.cli.serve.model import choose
    from radixmesh.cli.serve.plan import gateway_ports, plan

    model = choose(options.model, options.served_model_name)
    # On a shared bus two machines must not both call their first replica r0.
    suffix = f"-{socket.gethostname()}-{os.getpid()}" if options.nats_url else ""
    return model, plan(options, model, machine.look(), gateway_ports(options), suffix)


def _with_ports(options: Options) -> Options:
    """Chooses a port where 0 was given, and sees to it that all can be had. Raises ConfigError."""
    from radixmesh.cli.serve import machine

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
    from radixmesh.cli.serve import machine
    from radixmesh.cli.serve.plan import gateway_ports

    host = options.host
    for http, grpc in gateway_ports(options):
        machine.require_free(host, http, "--port")
        if grpc != GRPC_OFF:
            machine.require_free(host, grpc, "--grpc-port")


def _log_dir(options: Options) -> Path:
    """The directory for logs, made if need be. Raises OSError if the one named cannot be made."""
    from radixmesh.cli.serve import state

    if options.log_dir is not None:
        options.log_dir.mkdir(parents=True, exist_ok=True)
        return options.log_dir
    directory = state.home() / f"serve-{options.port}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:  # no home to write into, as in many containers
        return Path(tempfile.mkdtemp(prefix="radixmesh-logs-"))
    return directory


async def _serve(session: "Session") -> int:
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, session.stop)
    return await session.run()
