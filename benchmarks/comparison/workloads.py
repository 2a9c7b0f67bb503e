"""What is measured: loads, the figure that counts, and the target it is held against."""

from dataclasses import dataclass, replace
from typing import Literal

MESH, NO_CACHE, W8, W4 = "radixmesh", "radixmesh-no-cache", "radixmesh-w8a16", "radixmesh-w4a16"
VLLM, OPENVINO = "vllm", "openvino"
OWN = (MESH, NO_CACHE, W8, W4)
PEERS = (VLLM, OPENVINO)
BRIEF = frozenset(OWN) - {MESH}
"""Started anew for each of their few runs, which costs seconds: kept, they would take the others' memory."""
SERVERS = (*OWN, *PEERS)

TPOT, TTFT, THROUGHPUT = "tpot_ms.p50", "ttft_ms.p50", "output_tokens_per_s"
LABELS = {TPOT: "ms per output token", TTFT: "ms to the first token", THROUGHPUT: "output tok/s"}
REST_CPU = "cpu_ms_per_output_token.tree, rest"
CLIENT_CPU = "cpu_ms_per_output_token.client"

Against = Literal["best peer", "floor"] | str


@dataclass(frozen=True, slots=True)
class Target:
    """`server`'s figure, divided by that of `against`, should be at least (throughput) or at most `ratio`.

    `against` is "best peer", "floor" (then the ratio is the floor's time by ours, to be reached or passed) or a server.
    """

    ratio: float
    against: Against = "best peer"
    server: str = MESH


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    title: str
    shape: str
    """Of `checkpoints.SHAPES`."""
    requests: int
    concurrency: int
    figure: str
    targets: tuple[Target, ...]
    input_len: int = 128
    output_len: int = 64
    shared_prefix_len: int = 0
    servers: tuple[str, ...] = (MESH, *PEERS)

    @property
    def more_is_better(self) -> bool:
        return self.figure == THROUGHPUT

    def quick(self) -> "Workload":
        """As small as it can be: to see that everything runs, not how fast."""
        return replace(
            self,
            title=f"{self.title}, quick",
            requests=min(self.requests, 4),
            concurrency=min(self.concurrency, 4),
            input_len=min(self.input_len, 64),
            output_len=min(self.output_len, 4),
            shared_prefix_len=min(self.shared_prefix_len, 64),
        )

    def bench_flags(self, seed: int, warmup: int, vocab: int) -> list[str]:
        """Flags of `radixmesh bench`, but for the server's address."""
        values = {
            "requests": self.requests,
            "concurrency": self.concurrency,
            "input-len": self.input_len,
            "output-len": self.output_len,
            "shared-prefix-len": self.shared_prefix_len,
            "vocab-size": vocab,
            "seed": seed,
            "warmup": warmup,
        }
        return [word for flag, value in values.items() for word in (f"--{flag}", str(value))]


BIG, SMALL = "qwen3-0.6b", "llama-100m"
WORKLOADS = (
    Workload("one", "0.6B, 1 client, 128 / 64", BIG, 4, 1, TPOT, (Target(0.88, "floor"),)),
    Workload("eight", "0.6B, 8 clients, 34 requests, 128 / 64", BIG, 34, 8, THROUGHPUT, (Target(1.4),)),
    Workload("many", "0.6B, 32 clients, 64 requests, 128 / 64", BIG, 64, 32, THROUGHPUT, (Target(1.45),)),
    Workload(
        "prefix",
        "0.6B, 8 clients, 34 requests, one shared 1024-token prefix, 32 / 32",
        BIG,
        34,
        8,
        THROUGHPUT,
        (Target(1.8), Target(4.0, NO_CACHE)),
        input_len=32,
        output_len=32,
        shared_prefix_len=1024,
        servers=(MESH, NO_CACHE, *PEERS),
    ),
    Workload("long", "0.6B, 1 client, 2048 in / 8 out", BIG, 3, 1, TTFT, (Target(0.75),), input_len=2048, output_len=8),
    Workload("small-one", "100M, 1 client, 128 / 64", SMALL, 8, 1, TPOT, (Target(0.75),)),
    Workload("small-many", "100M, 32 clients, 64 requests, 128 / 64", SMALL, 64, 32, THROUGHPUT, (Target(1.5),)),
    Workload(
        "quantized",
        "0.6B, 1 client, 128 / 64, int8 and int4 weights",
        BIG,
        4,
        1,
        TPOT,
        # 20.5 and 13 ms where bfloat16 takes 41.
        (Target(0.5, MESH, W8), Target(0.317, MESH, W4)),
        servers=(MESH, W8, W4),
    ),
)


def choose(names: list[str] | None) -> tuple[Workload, ...]:
    """Those named, in the table's order; all without names. Raises ValueError for a name that does not exist."""
    known = [workload.name for workload in WORKLOADS]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"no workload {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(workload for workload in WORKLOADS if not names or workload.name in names)
