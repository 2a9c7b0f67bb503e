"""RadixMesh and vLLM: how each is started, when it is ready, how it is driven."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import create_server

from benchmarks.comparison.processes import ServerError, Tree, cores, free_gib
from benchmarks.comparison.results import Run
from benchmarks.comparison.schedule import Turn
from benchmarks.comparison.shapes import Shape
from benchmarks.comparison.workloads import MESH, NO_CACHE, W4, W8

MAX_MODEL_LEN = 4096
MAX_RUNNING = 64
LEAST_FREE_GIB = 3.0
RUN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Options:
    """What all servers are told."""

    work: Path
    """For logs and results; exists."""
    peers: Path
    """Holds an environment for each peer."""
    threads: int
    dtype: str
    """Of RadixMesh's weights and KV cache."""
    vllm_dtype: str
    kv_gib: float
    start_seconds: float
    """A server that is not ready by then is given up."""
    serve_flags: tuple[str, ...] = ()
    """More flags of `radixmesh serve`."""


class Server(ABC):
    """One server with one model. Between `start` and `end` it sleeps, but for `awake` times."""

    def __init__(self, name: str, options: Options, shape: Shape, checkpoint: Path) -> None:
        self.name = name
        self.options = options
        self.shape = shape
        self.checkpoint = checkpoint
        self.settings = ""
        """For people: how it runs, where that is not obvious."""

    @abstractmethod
    def start(self) -> float:
        """Seconds until it was ready. Raises ServerError."""

    @abstractmethod
    def run(self, turn: Turn) -> Run:
        """Loads it once. Raises ServerError."""

    @property
    @abstractmethod
    def tree(self) -> Tree: ...

    def log(self) -> Path:
        return self.options.work / f"{self.name}-{self.shape.name}.log"

    def require_memory(self) -> None:
        """Raises ServerError. Swapping, or another server's death, would spoil more than this server's figures."""
        if (free := free_gib()) < LEAST_FREE_GIB:
            raise ServerError(f"only {free:.1f} GiB of memory are free; leave out other servers or lower --kv-gib")


class HttpServer(Server):
    """Speaks OpenAI's API, and is driven by `radixmesh bench`, a process of its own as any client."""

    ready_path: str
    worker: str
    """Part of the command line or title of the process that computes."""

    def __init__(self, name: str, options: Options, shape: Shape, checkpoint: Path) -> None:
        super().__init__(name, options, shape, checkpoint)
        self._port = 0
        self._tree: Tree | None = None

    @abstractmethod
    def command(self, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        """Arguments, and what is added to the environment."""

    @property
    def tree(self) -> Tree:
        assert self._tree is not None, "not started"  # noqa: S101
        return self._tree

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> float:
        self.require_memory()
        with create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self._tree = Tree(*self.command(self._port), self.log())
        try:
            self.wait_ready(self.options.start_seconds)
        except BaseException:  # an interruption, too: nobody else knows of it yet
            self._tree.end()
            raise
        return time.perf_counter() - self._tree.started

    def wait_ready(self, seconds: float) -> None:
        """Raises ServerError."""
        until = time.perf_counter() + seconds
        while not self._is_ready():
            self.tree.check()
            if time.perf_counter() > until:
                raise ServerError(f"not ready after {seconds:.0f} s:\n{self.tree.log_tail()}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self.ready_path, timeout=5) as answer:  # noqa: S310  our own URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def run(self, turn: Turn) -> Run:
        self.wait_ready(60)  # it slept, and may take a moment to find its parts again
        result = self.options.work / "run.json"
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", "radixmesh.bench", "--url", self.url, "--json", str(result)]
        command += turn.workload.bench_flags(turn.seed, turn.warmup, self.shape.vocab)
        command += ["--cpu-of-tree", str(self.tree.pid)]
        if (worker := self.tree.find(self.worker)) is not None:
            command += ["--pid-cpu", f"worker={worker}"]
        try:
            bench = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise ServerError(f"one run took more than {RUN_SECONDS} s") from None
        if not result.exists():
            self.tree.check()
            raise ServerError(f"the bench failed: {bench.stderr.strip()[-500:]}")
        return Run.from_bench(json.loads(result.read_text()))


class RadixMesh(HttpServer):
    ready_path = "/ready"
    worker = "radixmesh.services.model_worker"

    extra: Mapping[str, tuple[str, ...]] = {
        MESH: (),
        NO_CACHE: ("--set", "scheduler.prefix_cache=false"),
        W8: ("--quantization", "w8a16"),
        W4: ("--quantization", "w4a16"),
    }

    def command(self, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        values = {
            "model": self.checkpoint,
            "dtype": self.options.dtype,
            "max-model-len": MAX_MODEL_LEN,
            "max-slots": MAX_RUNNING,
            "kv-memory": self.options.kv_gib,
            "threads": self.options.threads,
            "port": port,
            "grpc-port": -1,
            "log-dir": self.options.work / f"{self.name}-{self.shape.name}.logs",
        }
        flags = [word for flag, value in values.items() for word in (f"--{flag}", str(value))]
        own = self.options.serve_flags
        self.settings = " ".join([f"--dtype {self.options.dtype}", *self.extra[self.name], *own])
        return [sys.executable, "-m", "radixmesh.cli", "serve", *flags, *self.extra[self.name], *own], {}

    def start(self) -> float:
        if self.name in (W8, W4) and not _worker_knows("--quantization"):
            raise ServerError("the model worker has no --quantization yet")
        return super().start()


class Vllm(HttpServer):
    ready_path = "/health"
    worker = "VLLM::Worker"

    def command(self, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        home = self.options.peers / "vllm"
        if not (home / ".complete").exists():
            raise ServerError("its environment is missing: benchmarks/peers.sh vllm")
        values = {
            "dtype": self.options.vllm_dtype,
            "max-model-len": MAX_MODEL_LEN,
            "max-num-seqs": MAX_RUNNING,
            "host": "127.0.0.1",
            "port": port,
        }
        flags = [word for flag, value in values.items() for word in (f"--{flag}", str(value))]
        flags += ["--enable-prefix-caching", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
        mine = cores()[: self.options.threads]
        environ = {
            "OMP_NUM_THREADS": str(self.options.threads),
            "VLLM_CPU_OMP_THREADS_BIND": f"{mine[0]}-{mine[-1]}",
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(self.options.kv_gib))),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        openmp = home / "lib" / "libiomp5.so"  # it asks for it; the other OpenMP is slower
        if openmp.exists():
            environ["LD_PRELOAD"] = str(openmp)
        self.settings = f"--dtype {self.options.vllm_dtype}, prefix cache on, {openmp.name if openmp.exists() else ''}"
        return [str(home / "bin" / "vllm"), "serve", str(self.checkpoint), *flags], environ


def _worker_knows(flag: str) -> bool:
    command = [sys.executable, "-m", "radixmesh.services.model_worker", "--help"]
    return flag in subprocess.run(command, capture_output=True, text=True, check=False).stdout
