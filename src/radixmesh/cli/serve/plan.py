"""Which processes a mesh consists of, and with which flags. Pure: looks at nothing but its arguments."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from radixmesh.cli.serve.machine import Machine
from radixmesh.cli.serve.options import GRPC_OFF, Options
from radixmesh.shared.errors import ConfigError

GATEWAY_DRAIN = 1.5
"""Seconds a gateway gives its last streams when the mesh ends; see `supervisor` for the whole time-table."""

QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
"""Environment of everyone but the workers: threads of theirs would only take the workers' cores."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to run."""

    service: str
    instance: str
    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    """Added to the supervisor's own. Secrets go here: others can read a command line."""

    @property
    def label(self) -> str:
        """The instance's name for people and for log files; a scheduler's, r0, says too little."""
        return f"scheduler-{self.instance}" if self.service == "scheduler" else self.instance


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """Processes that live and die together: the ranks of a worker group, or a single process."""

    name: str
    processes: tuple[ProcessSpec, ...]

    @property
    def service(self) -> str:
        return self.processes[0].service

    def commands(self, dist_port: int | None) -> list[ProcessSpec]:
        """The processes for one start. Ranks meet at `dist_port`, a new one each time: the old one may linger."""
        if dist_port is None:
            return list(self.processes)
        meet = ("--dist-init", f"tcp://127.0.0.1:{dist_port}")
        return [
            ProcessSpec(spec.service, spec.instance, (*spec.argv, *meet), spec.environ) for spec in self.processes
        ]


@dataclass(frozen=True, slots=True)
class Model:
    """What is served."""

    path: str
    name: str


def plan(
    options: Options, model: Model, machine: Machine, ports: Iterable[tuple[int, int]], suffix: str = ""
) -> list[UnitSpec]:
    """The whole mesh, but for the NATS server.

    Args:
        ports: (HTTP, gRPC) for each gateway.
        suffix: ends every instance's name, so that several machines can share one bus.

    Raises:
        ConfigError: two flags contradict each other.
    """
    units = [_gateway(options, i, pair, suffix) for i, pair in enumerate(ports)]
    for service, count in (("tokenizer", options.tokenizers), ("detokenizer", options.detokenizers)):
        flags = ("--model", model.path, "--served-model-name", model.name)
        units += [_single(options, service, f"{service}-{i}{suffix}", flags) for i in range(count)]
    for i in range(options.replicas):
        replica = f"r{i}{suffix}"
        units.append(_single(options, "scheduler", replica, ("--replica", replica)))
        units.append(_worker_group(options, model, machine, i, replica))
    return units


def worker_threads(options: Options, machine: Machine) -> int:
    """CPU threads for each worker process: the cores, shared out."""
    return options.threads or max(1, machine.cores // (options.replicas * options.tp))


def _gateway(options: Options, index: int, ports: tuple[int, int], suffix: str) -> UnitSpec:
    http, grpc = ports
    flags: tuple[str, ...] = ("--http-host", options.host, "--http-port", str(http), "--grpc-host", options.host)
    flags += ("--grpc-port", str(grpc), "--drain-timeout", str(GATEWAY_DRAIN))
    secret = {"RADIXMESH_API_KEY": options.api_key} if options.api_key else {}
    return _single(options, "gateway", f"gateway-{index}{suffix}", flags, secret)


def _single(
    options: Options, service: str, instance: str, flags: tuple[str, ...], environ: Mapping[str, str] | None = None
) -> UnitSpec:
    spec = _process(options, service, instance, flags, {**QUIET, **(environ or {})})
    return UnitSpec(spec.label, (spec,))


def _worker_group(options: Options, model: Model, machine: Machine, index: int, replica: str) -> UnitSpec:
    threads = str(worker_threads(options, machine))
    flags: tuple[str, ...] = ("--model", model.path, "--served-model-name", model.name, "--replica", replica)
    flags += ("--group", f"g-{replica}", "--tp", str(options.tp), "--threads", threads)
    flags += tuple(word for name, value in options.worker_flags for word in _flag(name, value))
    flags += _share_of_the_machine(options, machine, index)
    environ = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    ranks = tuple(
        _process(
            options, "model_worker", f"worker-{replica}-{rank}", (*flags, "--rank", str(rank)), environ
        )
        for rank in range(options.tp)
    )
    return UnitSpec(f"worker-{replica}", ranks)


def _share_of_the_machine(options: Options, machine: Machine, index: int) -> tuple[str, ...]:
    """Flags that keep several workers on one machine from taking the same device or memory."""
    workers = options.replicas * options.tp
    if workers == 1:
        return ()
    if machine.accelerators >= workers:
        return ("--device-index", str(index * options.tp))
    told = {name for name, _ in options.worker_flags} | {
        flag.replace("-", "_") for service, flag, _ in options.settings if service == "model_worker"
    }
    if machine.accelerators or not machine.free_gib or told & {"kv_memory", "num_pages", "memory_fraction"}:
        return ()
    return ("--kv-memory", f"{machine.free_gib * 0.5 / workers:.3f}")


def _process(
    options: Options, service: str, instance: str, flags: tuple[str, ...], environ: Mapping[str, str]
) -> ProcessSpec:
    common = ("--instance", instance, "--namespace", options.namespace)
    logs = ("--log-level", options.log_level, "--log-format", "text")
    own = tuple(word for name, flag, value in options.settings if name == service for word in _flag(flag, value))
    module = f"radixmesh.services.{service}"
    return ProcessSpec(service, instance, (sys.executable, "-m", module, *common, *logs, *flags, *own), environ)


def _flag(name: str, value: str) -> tuple[str, ...]:
    """A flag as our settings classes read it: kebab case, and no value for a truth value."""
    flag = name.replace("_", "-")
    if value.lower() in ("true", "false"):
        return (f"--{flag}" if value.lower() == "true" else f"--no-{flag}",)
    return (f"--{flag}", value)


def gateway_ports(options: Options) -> list[tuple[int, int]]:
    """(HTTP, gRPC) of each gateway: consecutive ones. gRPC is -1 if it is off.

    Raises:
        ConfigError: the two ranges meet.
    """
    http, grpc = options.port, options.grpc_port
    if grpc == GRPC_OFF:
        return [(http + i, GRPC_OFF) for i in range(options.gateways)]
    if abs(http - grpc) < options.gateways:
        raise ConfigError(f"--port {http} and --grpc-port {grpc} meet with {options.gateways} gateways")
    return [(http + i, grpc + i) for i in range(options.gateways)]
