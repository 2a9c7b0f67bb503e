"""The flags of `radixmesh serve`."""

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from radixmesh.cli.services import service_name
from radixmesh.shared import names
from radixmesh.shared.errors import ConfigError

GRPC_OFF = -1
MAX_PROCESSES = 256
"""Of one kind. More than a machine holds; a typing error should not start thousands."""

DEFAULT_HOST = "127.0.0.1"

_WORKER_FLAGS = ("dtype", "quantization", "max_model_len", "max_slots", "page_size", "kv_memory")
_DECIDED = {
    "http_port": "--port",
    "grpc_port": "--grpc-port",
    "nats_url": "--nats-url",
    "namespace": "--namespace",
    "served_model_name": "--served-model-name",
    "tp": "--tp",
    **dict.fromkeys(("instance", "replica", "group", "rank")),
}
"""Flags of services that must agree with what the supervisor knows, and its own flag for each, if there is one."""
_SETTING = re.compile(r"(?P<service>[a-z_-]+)\.(?P<flag>[a-z][a-z0-9_-]*)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Options:
    """What one invocation asks for; see the flags' help."""

    model: str | None
    served_model_name: str | None
    host: str
    port: int
    grpc_port: int
    gateways: int
    tokenizers: int
    detokenizers: int
    replicas: int
    tp: int
    threads: int | None
    worker_flags: tuple[tuple[str, str], ...]
    """(flag, value) for every model worker."""
    settings: tuple[tuple[str, str, str], ...]
    """(service, flag, value) of each ``--set``."""
    nats_url: str | None
    namespace: str
    api_key: str | None
    log_level: str
    show_logs: bool
    log_dir: Path | None
    state_file: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model_arguments(parser.add_argument_group("model"))
    _add_size_arguments(parser.add_argument_group("how many processes"))
    add = parser.add_argument_group("addresses").add_argument
    add("--host", default=DEFAULT_HOST, help="to listen on (default: %(default)s)")
    add("--port", type=int, default=8000, help="HTTP; 0: any free one (default: %(default)s)")
    add("--grpc-port", type=int, default=50051, help="0: any free one; -1: no gRPC (default: %(default)s)")
    add("--api-key", default=os.environ.get("RADIXMESH_API_KEY"), help="default: $RADIXMESH_API_KEY, or none")
    add("--strict-model-names", action="store_true", help="refuse unknown names where a single model is served, too")
    add("--cors-origins", metavar="LIST", help="of web pages that may call, by commas, or 'none' (default: all)")
    add(
        "--nats-url",
        default=os.environ.get("RADIXMESH_NATS_URL"),
        help="of a NATS server to use (default: $RADIXMESH_NATS_URL, or a private one that is started)",
    )
    add("--namespace", default="radixmesh", help="first token of every subject (default: %(default)s)")
    add = parser.add_argument_group("services and logs").add_argument
    add(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="SERVICE.FLAG=VALUE",
        help="any other flag of a service, such as scheduler.policy=lpm (see radixmesh run SERVICE --help)",
    )
    add("--log-level", choices=["debug", "info", "warning", "error"], default="info", help="of the log files")
    add("--show-logs", action="store_true", help="show whole logs here, not only warnings and errors")
    add("--log-dir", type=Path, metavar="DIR", help="default: a directory under ~/.local/state/radixmesh")
    add("--state-file", type=Path, metavar="PATH", help="JSON with process ids and addresses; default: in --log-dir")


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", metavar="PATH_OR_HUB_ID", help="Hugging Face directory or hub id (default: a bundled one)")
    add("--served-model-name", metavar="NAME", help="default: the last path component of --model")
    add("--reasoning-parser", metavar="NAME", help="how it marks thoughts (default: as its chat template does)")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], help="of weights and KV cache")
    add("--quantization", choices=["w8a16", "w4a16"], help="weights in 8 or 4 bits, rounded at load")
    add("--max-model-len", type=int, metavar="TOKENS", help="prompt and output (default: the model's)")
    add("--max-slots", type=int, metavar="N", help="sequences that run at once, for each replica")
    add("--page-size", type=int, metavar="TOKENS", help="of a page of the KV cache")
    add("--kv-memory", type=float, metavar="GIB", help="for the KV cache of each worker")
    add("--threads", type=int, metavar="N", help="of each worker (default: the cores, shared out)")


def _add_size_arguments(group: argparse._ArgumentGroup) -> None:
    for flag, text in (
        ("--replicas", "schedulers, each with a worker group of its own"),
        ("--tp", "ranks in each worker group (tensor parallelism)"),
        ("--tokenizers", "tokenizers"),
        ("--detokenizers", "detokenizers"),
        ("--gateways", "gateways, on --port, --port + 1, ..."),
    ):
        group.add_argument(flag, type=int, default=1, metavar="N", help=f"{text} (default: %(default)s)")


def from_args(args: argparse.Namespace) -> Options:
    """Checks what argparse cannot.

    Raises:
        ConfigError: naming the flag that is wrong.
    """
    for name in ("replicas", "tp", "tokenizers", "detokenizers", "gateways"):
        _within(name, getattr(args, name), 1, MAX_PROCESSES)
    for name in ("threads", "max_model_len", "max_slots", "page_size"):
        if getattr(args, name) is not None:
            _within(name, getattr(args, name), 1, 1 << 31)
    if args.kv_memory is not None and not 0 < args.kv_memory < 1 << 20:
        raise ConfigError(f"--kv-memory {args.kv_memory:g}: must be more than 0 (GiB)")
    _within("port", args.port, 0, 65536 - args.gateways)
    _within("grpc_port", args.grpc_port, GRPC_OFF, 65536 - args.gateways)
    given = {name: getattr(args, name) for name in _WORKER_FLAGS}
    parser = [("tokenizer", "reasoning-parser", args.reasoning_parser)] if args.reasoning_parser else []
    return Options(
        model=args.model or None,
        served_model_name=_word("served-model-name", args.served_model_name, names.model_name),
        host=args.host or DEFAULT_HOST,
        port=args.port,
        grpc_port=args.grpc_port,
        gateways=args.gateways,
        tokenizers=args.tokenizers,
        detokenizers=args.detokenizers,
        replicas=args.replicas,
        tp=args.tp,
        threads=args.threads,
        worker_flags=tuple((name, str(value)) for name, value in given.items() if value is not None),
        settings=(*parser, *_gateway_settings(args), *(_setting(text) for text in args.settings)),
        nats_url=args.nats_url or None,
        namespace=args.namespace,
        api_key=_word("api-key", args.api_key, names.api_key),
        log_level=args.log_level,
        show_logs=args.show_logs,
        log_dir=args.log_dir,
        state_file=args.state_file,
    )


def _gateway_settings(args: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Flags that are the gateways' alone, as if they came by ``--set``."""
    strict = [("gateway", "strict-model-names", "true")] if args.strict_model_names else []
    return strict + ([] if args.cors_origins is None else [("gateway", "cors-origins", args.cors_origins)])


def _word(flag: str, value: str | None, rule: Callable[[str], str]) -> str | None:
    """None for an empty one: nothing was given."""
    try:
        return rule(value) if value else None
    except ValueError as error:
        raise ConfigError(f"--{flag} {error}") from None


def _within(name: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise ConfigError(f"--{name.replace('_', '-')} {value}: must be {lowest} to {highest}")


def _setting(text: str) -> tuple[str, str, str]:
    match = _SETTING.fullmatch(text)
    if match is None:
        raise ConfigError(f"--set {text}: must read SERVICE.FLAG=VALUE, such as scheduler.policy=lpm")
    try:
        service = service_name(match["service"])
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--set {text}: {error}") from None
    if (flag := match["flag"].replace("-", "_")) in _DECIDED:
        own = _DECIDED[flag]
        raise ConfigError(f"--set {text}: " + (f"say {own}" if own else "serve itself decides that"))
    return service, match["flag"], match["value"]
