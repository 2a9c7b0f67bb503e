"""Which processes a mesh consists of, and with which flags. Pure: looks at nothing but its arguments."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from radixmesh.cli.serve.host import interpreter
from radixmesh.cli.serve.host.machine import Machine
from radixmesh.cli.serve.planning.options import GRPC_OFF, Options
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
        """The processes for one start. Ranks meet at `dist_port`, a new one each time: the old one may linger.

        Raises OSError if files that a start needs cannot be written.
        """
        if dist_port is None:
            return list(self.processes)
        meet = f"--dist-init=tcp://127.0.0.1:{dist_port}"
        return [replace(spec, argv=(*spec.argv, meet)) for spec in self.processes]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is served."""

    path: str
    name: str


def plan(
    options: Options, model: ServedModel, machine: Machine, ports: Iterable[tuple[int, int]], suffix: str = ""
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
        flags = _flags(model=model.path, served_model_name=model.name)
        units += [_single(options, service, f"{service}-{i}{suffix}", flags) for i in range(count)]
    for i in range(options.replicas):
        replica = f"r{i}{suffix}"
        units.append(_single(options, "scheduler", replica, _flags(replica=replica)))
        units.append(_worker_group(options, model, machine, i, replica))
    return units


def worker_threads(options: Options, machine: Machine) -> int:
    """CPU threads for each worker process: the cores, shared out."""
    return options.threads or max(1, machine.cores // (options.replicas * options.tp))


def _gateway(options: Options, index: int, ports: tuple[int, int], suffix: str) -> UnitSpec:
    http, grpc = ports
    flags = _flags(
        http_host=options.host,
        http_port=http,
        grpc_host=options.host,
        grpc_port=grpc,
        drain_timeout=GATEWAY_DRAIN,
    )
    secret = {"RADIXMESH_API_KEY": options.api_key} if options.api_key else {}
    return _single(options, "gateway", f"gateway-{index}{suffix}", flags, secret)


def _single(
    options: Options, service: str, instance: str, flags: tuple[str, ...], environ: Mapping[str, str] | None = None
) -> UnitSpec:
    spec = _process(options, service, instance, flags, {**QUIET, **(environ or {})})
    return UnitSpec(spec.label, (spec,))


def _worker_group(options: Options, model: ServedModel, machine: Machine, index: int, replica: str) -> UnitSpec:
    threads = str(worker_threads(options, machine))
    flags = _flags(
        model=model.path,
        served_model_name=model.name,
        replica=replica,
        group=f"g-{replica}",
        tp=options.tp,
        threads=threads,
        **dict(options.worker_flags),
    )
    flags += _share_of_the_machine(options, machine, index)
    environ = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    ranks = tuple(
        _process(options, "model_worker", f"worker-{replica}-{rank}", (*flags, *_flags(rank=rank)), environ)
        for rank in range(options.tp)
    )
    return UnitSpec(f"worker-{replica}", ranks)


def _share_of_the_machine(options: Options, machine: Machine, index: int) -> tuple[str, ...]:
    """Flags that keep several workers on one machine from taking the same device or memory."""
    workers = options.replicas * options.tp
    if workers == 1:
        return ()
    if machine.accelerators >= workers:
        return _flags(device_index=index * options.tp)
    told = {name for name, _ in options.worker_flags} | {
        flag.replace("-", "_") for service, flag, _ in options.settings if service == "model_worker"
    }
    if machine.accelerators or not machine.free_gib or told & {"kv_memory", "num_pages", "memory_fraction"}:
        return ()
    return _flags(kv_memory=f"{machine.free_gib * 0.5 / workers:.3f}")


def _process(
    options: Options, service: str, instance: str, flags: tuple[str, ...], environ: Mapping[str, str]
) -> ProcessSpec:
    common = _flags(instance=instance, namespace=options.namespace, log_level=options.log_level, log_format="text")
    own = tuple(word for name, flag, value in options.settings if name == service for word in _flags(**{flag: value}))
    argv = (*interpreter.command(f"radixmesh.services.{service}"), *common, *flags, *own)
    return ProcessSpec(service, instance, argv, environ)


def _flags(**values: str | float) -> tuple[str, ...]:
    """Settings by name, each with its value in one word: as a word of its own a value could be taken for a flag."""
    return tuple(f"--{name.replace('_', '-')}={value}" for name, value in values.items())


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
