"""The CPU kernels against what the machine can do, and against torch: at the shapes of Qwen3-0.6B.

    python -m benchmarks.kernels                      # linear layers and whole steps, a few minutes
    python -m benchmarks.kernels --only steps --quantization w8a16 --repeats 9
    python -m benchmarks.kernels --only linear --rows 1 8

Everything is measured in turn, round after round, and the least time of each counts: so a busy machine slows all
alike, and ratios hold where absolute figures do not. With `--threads 1` it is CPU time, which others cannot take
away. Floors are measured in the same rounds: the bandwidth of reading 256 MB, and the rate of nothing but
multiply-adds, both with the same threads.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from radixmesh.services.model_worker.devices.cpu.device import CpuDevice
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.cpu.native import INT12, Native, native
from radixmesh.services.model_worker.devices.cpu.packed import QUANTIZATIONS, Format, PackedWeight
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.devices.torch.linear import TorchLinear
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.layers.linear import Build
from radixmesh.services.model_worker.models import load_model, open_model
from radixmesh.services.model_worker.parallel.mesh import Mesh
from radixmesh.services.model_worker.sampling.columns import SamplingBatch, SamplingRow
from radixmesh.services.model_worker.sampling.sampler import Sampler
from radixmesh.shared.messages import SamplingParams

LAYERS, VOCABULARY = 28, 32000
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
SHAPES = {"qkv": (4096, 1024), "o": (1024, 2048), "gate_up": (6144, 1024), "down": (1024, 3072)}
SHAPES["head"] = (VOCABULARY, 1024)
STEPS = {  # sequences, new tokens of each, context of each, tokens of a prefix that all share
    "decode x1": (1, 1, 160, 0),
    "decode x8": (8, 1, 160, 0),
    "decode x32": (32, 1, 160, 0),
    "decode x8 at 1056": (8, 1, 1056, 0),
    "decode x8, shared": (8, 1, 1056, 1024),
    "prefill 128": (1, 128, 128, 0),
}
LONG_STEPS = {"prefill 2048": (1, 2048, 2048, 0), "decode x1 at 2048": (1, 1, 2048, 0)}
FLOOR_BYTES = 256 << 20
COLD_BYTES = 192 << 20  # copies of a weight, so that a cache never holds the next one
MAX_SECONDS = 3.0  # what takes longer is measured once


class Stopwatch:
    """The least time of each named thing, over rounds of all of them."""

    def __init__(self, library: Native) -> None:
        self.library = library
        self.best: dict[str, float] = {}
        self.clock = time.process_time if library.threads == 1 else time.perf_counter
        self.floor = torch.ones(FLOOR_BYTES // 4)
        self.rounds = 200_000

    def run(self, things: dict[str, Callable[[], object]], repeats: int) -> None:
        self.best = {}
        floors: dict[str, Callable[[], object]] = {
            "read": lambda: self.library.library.rm_read(self.floor.data_ptr(), FLOOR_BYTES),
            "multiply": lambda: self.library.library.rm_multiply_add(self.rounds),
        }
        for turn in range(repeats + 1):  # the first round warms up
            for name, thing in (floors | things).items():
                if self.best.get(name, 0.0) > MAX_SECONDS:
                    continue
                start = self.clock()
                thing()
                spent = self.clock() - start
                if turn or spent > MAX_SECONDS:
                    self.best[name] = min(spent, self.best.get(name, spent))

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return FLOOR_BYTES / self.best["read"]

    @property
    def peak(self) -> float:
        """Floating point operations per second."""
        sums = 12 if self.library.panel_width == 16 else 24
        return self.rounds * self.library.threads * sums * self.library.panel_width / self.best["multiply"]


Calls = list[Callable[[Tensor], object]]


def stored_weights(library: Native, n: int, k: int) -> tuple[dict[str, list[PackedWeight]], dict[str, list[Tensor]]]:
    """Copies of a random matrix, packed in each way, and as torch has them."""
    weight = torch.randn(n, k) * 0.02
    half = weight.bfloat16()
    copies = max(1, COLD_BYTES // half.nbytes)
    forms = {"bf16": Format(), "int12": Format(INT12, 128), "int8": Format.of("w8a16"), "int4": Format.of("w4a16")}
    packed = {name: [PackedWeight(library, [half], form=form) for _ in range(copies)] for name, form in forms.items()}
    packed["fp32"] = [PackedWeight(library, [weight]) for _ in range(copies // 2 + 1)]
    plain = {"torch f32": [weight.clone() for _ in range(copies // 2 + 1)]}
    plain["torch bf16"] = [half.clone() for _ in range(copies)]
    return packed, plain


def linear_table(library: Native, rows: list[int], repeats: int) -> None:
    """A line per shape, number of rows and way of storing the weight."""
    header = f"{'layer':8} {'rows':>5} {'weights':8} {'ms':>8} {'GB/s':>6} {'of read':>8} {'GFLOP/s':>8} {'of peak':>8}"
    print(header + f" {'torch f32':>10} {'torch bf16':>10}   (torch: times slower)")
    watch = Stopwatch(library)
    for name, (n, k) in SHAPES.items():
        packed, plain = stored_weights(library, n, k)
        calls: dict[str, Calls] = {kind: [weight.multiply for weight in weights] for kind, weights in packed.items()}
        for kind, matrices in plain.items():
            calls[kind] = [partial(torch_linear, matrix) for matrix in matrices]
        for m in rows:
            x = torch.randn(m, k)
            if m > 32:  # cold weights make no difference
                calls = {kind: functions[:1] for kind, functions in calls.items()}
            watch.run({kind: partial(call_all, functions, x) for kind, functions in calls.items()}, repeats)
            each = {kind: watch.best[kind] / len(functions) for kind, functions in calls.items()}
            for kind, weights in packed.items():
                seconds, flops = each[kind], 2 * m * n * k
                read, done = weights[0].nbytes / seconds, flops / seconds
                line = f"{name:8} {m:5} {kind:8} {seconds * 1e3:8.3f} {read / 1e9:6.1f} {read / watch.bandwidth:8.0%}"
                line += f" {done / 1e9:8.0f} {done / watch.peak:8.0%}"
                print(line + "".join(f" {each[other] / seconds:10.1f}" for other in plain), flush=True)


def torch_linear(weight: Tensor, x: Tensor) -> Tensor:
    return F.linear(x.to(weight.dtype), weight)


def call_all(functions: Calls, x: Tensor) -> None:
    for function in functions:
        function(x)


def make_batch(sequences: int, new: int, context: int, shared: int) -> ForwardBatch:
    pages = -(-context // 16)
    tables = np.arange(sequences * pages, dtype=np.int32).reshape(sequences, pages)
    tables[:, : shared // 16] = tables[0, : shared // 16]
    positions = np.tile(np.arange(context - new, context), sequences)
    locations = tables[np.repeat(np.arange(sequences), new), positions // 16].astype(np.int64) * 16 + positions % 16
    starts = np.arange(sequences + 1) * new
    ids = np.random.default_rng(0).integers(0, VOCABULARY, len(positions))
    lengths = np.full(sequences, context)
    return ForwardBatch.from_numpy(
        ids, positions, [locations], starts, lengths, [tables], starts[1:] - 1, torch.device("cpu")
    )


def step_table(library: Native, quantization: str, repeats: int, long: bool) -> None:
    """A line per kind of step, the head included."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        build = Build(Mesh(), torch.bfloat16, torch.device("cpu"), TorchLinear(), TorchAttention())
        model = load_model(open_model(folder, "dummy"), build)
    kv = KVCache(model.kv_groups(16), 600, model.device)
    start = time.perf_counter()
    fused = FusedDecoder(model, kv, quantization)  # type: ignore[arg-type]  # a name from a flag
    packing = time.perf_counter() - start
    print(f"{fused.weight_bytes / 1e6:.0f} MB of weights ({quantization or 'bf16'}), packed in {packing:.1f} s")
    steps = STEPS | (LONG_STEPS if long else {})
    things: dict[str, Callable[[], object]] = {
        name: partial(fused, make_batch(*shape)) for name, shape in steps.items()
    }
    draws = samplings(model.device)
    watch = Stopwatch(library)
    watch.run(things | draws, repeats)
    print(f"read {watch.bandwidth / 1e9:.1f} GB/s, peak {watch.peak / 1e9:.0f} GFLOP/s")
    print(f"{'step':18} {'ms':>8} {'tokens/s':>9} {'read floor':>11} {'of floor':>9} {'GFLOP/s':>8} {'of peak':>8}")
    parameters = sum(n * k for name, (n, k) in SHAPES.items() if name != "head") * LAYERS
    for name, (sequences, new, context, shared) in steps.items():
        seconds = watch.best[name]
        cached = (sequences * (context - new + 1 - shared) + shared) * kv.pools[0].spec.page_bytes / 16
        floor = (fused.weight_bytes + cached) / watch.bandwidth
        pairs = sequences * new * (context - (new - 1) / 2)  # queries and keys that meet
        flops = 2 * (sequences * new * parameters + sequences * VOCABULARY * 1024) + 4 * pairs * 16 * 128 * LAYERS
        line = f"{name:18} {seconds * 1e3:8.1f} {sequences * new / seconds:9.1f} {floor * 1e3:8.1f} ms"
        rate = flops / seconds
        print(line + f" {floor / seconds:9.0%} {rate / 1e9:8.0f} {rate / watch.peak:8.0%}", flush=True)
    for name in draws:
        step = watch.best[name.partition(",")[0]]
        print(f"{name:28} {watch.best[name] * 1e3:8.2f} ms of sampling after it: {watch.best[name] / step:.1%} of it")


def samplings(device: torch.device) -> dict[str, Callable[[], object]]:
    """By step and way of sampling: tokens from logits, the copy that it overwrites included."""
    ways = {
        "greedy": SamplingParams(temperature=0.0),
        "temperature": SamplingParams(seed=1),
        "top-p": SamplingParams(temperature=0.7, top_p=0.9, seed=1),
    }
    sampler, none = Sampler(CpuDevice.traits), np.zeros(0, np.int32)
    things: dict[str, Callable[[], object]] = {}
    for rows in (1, 8, 32):
        logits = torch.randn(rows, VOCABULARY)
        for way, params in ways.items():
            row = [SamplingRow(params, 0, VOCABULARY, device, none, none, []) for _ in range(rows)]
            batch = SamplingBatch(tuple(row), VOCABULARY, device)

            def sample(logits: Tensor = logits, batch: SamplingBatch = batch) -> object:
                return sampler.sample(logits.clone(), batch, np.arange(len(batch.rows)))

            things[f"decode x{rows}, {way}"] = sample
    return things


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=("linear", "steps"))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 128, 2048])
    parser.add_argument("--quantization", choices=QUANTIZATIONS, nargs="+", default=list(QUANTIZATIONS))
    parser.add_argument("--long", action="store_true", help="also 2048 tokens: seconds per step")
    options = parser.parse_args()
    library = native()
    if library is None:
        raise SystemExit("the kernels cannot be built here")
    library.set_threads(options.threads)
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, vectors of {library.panel_width // 2} floats, torch {torch.__version__}")
    with torch.inference_mode():
        if options.only != "linear":
            for quantization in options.quantization:
                step_table(library, quantization, options.repeats, options.long)
        if options.only != "steps":
            linear_table(library, options.rows, options.repeats)


if __name__ == "__main__":
    main()
