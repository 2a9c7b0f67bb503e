"""What one invocation of the bench asks for."""

import argparse
import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from radixmesh.shared import names

Endpoint = Literal["completions", "chat"]
PromptKind = Literal["ids", "text"]


class BenchError(Exception):
    """The bench cannot start or go on; its text is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Lengths are in tokens (in words for text prompts without a tokenizer); times are in seconds."""

    url: str
    model: str | None = None
    """None: the first of the server's /v1/models."""
    api_key: str | None = field(default=None, repr=False)
    endpoint: Endpoint = "completions"
    prompt: PromptKind = "ids"
    requests: int = 64
    concurrency: int | None = 32
    """So many requests at any time; None when arrivals are timed by `request_rate`."""
    request_rate: float | None = None
    """Poisson arrivals per second."""
    input_len: tuple[int, int] = (128, 128)
    """Lowest and highest, both possible. A shared prefix comes on top."""
    output_len: tuple[int, int] = (64, 64)
    shared_prefix_len: int = 0
    shared_prefixes: int = 1
    warm_prefixes: bool = False
    vocab_size: int | None = None
    """None: the tokenizer's, else 1000 or, if that is less, what the server tells."""
    tokenizer: Path | None = None
    temperature: float = 0.0
    ignore_eos: bool = True
    extra_body: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    warmup: int = 1
    repeats: int = 1
    timeout: float = 600.0
    """For one request, from its start to its last byte."""
    max_seconds: float | None = None
    """After so long a run starts no more requests; those in flight finish."""
    json_path: Path | None = None
    json_requests: bool = False
    pid_cpu: tuple[tuple[str, int], ...] = ()
    cpu_of_tree: int | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Settings":
        """Raises BenchError when the flags contradict each other."""
        chat = args.endpoint == "chat"
        if chat and args.prompt == "ids":
            raise BenchError("--prompt ids needs --endpoint completions: chat messages are text")
        if not _is_url(args.url):
            raise BenchError(f"--url must read like http://HOST or https://HOST:PORT, not {args.url!r}")
        if args.json_requests and args.json is None:
            raise BenchError("--json-requests needs --json")
        if args.json is not None and not args.json.absolute().parent.is_dir():
            raise BenchError(f"--json: no folder {args.json.absolute().parent}")
        if args.warm_prefixes and not args.shared_prefix_len:
            raise BenchError("--warm-prefixes needs --shared-prefix-len")
        names = [name for name, _ in args.pid_cpu]
        if len(set(names)) != len(names):
            raise BenchError("--pid-cpu: every process needs its own name")
        return cls(
            url=args.url.rstrip("/").removesuffix("/v1"),
            model=args.model,
            api_key=_api_key(args.api_key or os.environ.get("RADIXMESH_API_KEY")),
            endpoint=args.endpoint,
            prompt=args.prompt or ("text" if chat else "ids"),
            requests=args.requests,
            concurrency=None if args.request_rate else args.concurrency,
            request_rate=args.request_rate,
            input_len=_range("--input-len-range", args.input_len, args.input_len_range),
            output_len=_range("--output-len-range", args.output_len, args.output_len_range),
            shared_prefix_len=args.shared_prefix_len,
            shared_prefixes=args.shared_prefixes,
            warm_prefixes=args.warm_prefixes,
            vocab_size=args.vocab_size,
            tokenizer=args.tokenizer,
            temperature=args.temperature,
            ignore_eos=not args.no_ignore_eos,
            extra_body=args.extra_body,
            seed=args.seed,
            warmup=args.warmup,
            repeats=args.repeats,
            timeout=args.timeout,
            max_seconds=args.max_seconds,
            json_path=args.json,
            json_requests=args.json_requests,
            pid_cpu=tuple(args.pid_cpu),
            cpu_of_tree=args.cpu_of_tree,
        )

    @property
    def path(self) -> str:
        """The URL of the endpoint under load."""
        return f"{self.url}/v1/{'chat/completions' if self.endpoint == 'chat' else 'completions'}"

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers

    def to_json(self) -> dict[str, Any]:
        """All but the API key."""
        values = dataclasses.asdict(self)
        del values["api_key"]
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number or too large
        return False
    return right and not any(char.isspace() for char in text)


def _api_key(text: str | None) -> str | None:
    try:
        return names.api_key(text) if text else None
    except ValueError as error:
        raise BenchError(f"--api-key {error}") from None


def _range(flag: str, fixed: int, limits: list[int] | None) -> tuple[int, int]:
    low, high = limits or (fixed, fixed)
    if low > high:
        raise BenchError(f"{flag}: {low} is more than {high}")
    return low, high
