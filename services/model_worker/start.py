"""From settings to an engine that is ready to run."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from radixmesh.services.model_worker.checkpoint.config import DTYPES
from radixmesh.services.model_worker.checkpoint.mapped import Deferred
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.devices.cpu.build import must_be_built
from radixmesh.services.model_worker.devices.cpu.layers import PackedLinear
from radixmesh.services.model_worker.devices.cpu.native import Native, native
from radixmesh.services.model_worker.devices.cpu.onednn import OneDnnLinear, onednn_is_faster
from radixmesh.services.model_worker.devices.cpu.selfcheck import selfcheck
from radixmesh.services.model_worker.devices.executor import Executor, TorchExecutor, make_executor
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.engine.runner import ModelRunner
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVGroupSpec, pages_within
from radixmesh.services.model_worker.group.claim import kv_groups
from radixmesh.services.model_worker.group.rank_order import RankOrder
from radixmesh.services.model_worker.layers.linear import LinearMethod
from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.loading import load_model, open_model
from radixmesh.services.model_worker.parallel.mesh import ParallelGroup
from radixmesh.services.model_worker.platform import Platform, get_platform
from radixmesh.shared.errors import ConfigError
from radixmesh.shared.messages import Claimed
from radixmesh.shared.model_files.model_source import resolve

log = logging.getLogger(__name__)

Progress = Callable[[float, str], None]
"""Called with the fraction done, 0 to 1, and what is being done."""

RANK_TIMEOUT_SECONDS = 24 * 3600.0
"""How long a rank waits for the others in a collective: an idle group waits for its next plan in one. A rank that
dies closes its connections, which the others notice at once."""


_LONGEST = 1 << 22
"""Tokens of a sequence where no pool bounds them: a config may promise any number, and tables have a place for each."""

_CHUNKS_UNDER_WAY = 2048
"""Tokens of a prompt that are computed, or to be, before the window moves on: by the scheduler's defaults."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A rank that is ready to run plans."""

    engine: Engine
    order: RankOrder
    sizes: Claimed
    """What a scheduler is told when it claims the group; `group_id` is filled in by the service."""
    depth: int
    """Steps launched before the oldest is collected."""
    group: ParallelGroup

    def close(self) -> None:
        self.group.close()


def load(settings: ModelWorkerSettings, progress: Progress) -> Loaded:
    """Loads model and KV pool.

    Raises:
        ModelLoadError, PlatformError, ConfigError: naming file and field, or the setting, at fault.
    """
    threads = settings.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    progress(0.0, "finding the model")
    files = open_model(resolve(settings.model), "dummy" if settings.load_format == "dummy" else "safetensors")
    platform = get_platform(settings.device, settings.device_index + _device_offset(settings))
    kernels = _cpu_kernels(platform, threads, progress)
    if settings.quantization and kernels is None:
        raise ConfigError(f"--quantization {settings.quantization} needs the CPU kernels, which are not to be had here")
    if settings.tp > 1:
        progress(0.0, "meeting the other ranks")
    group = ParallelGroup.connect(
        settings.rank, settings.tp, platform.distributed_backend, settings.dist_init, RANK_TIMEOUT_SECONDS
    )
    dtype = DTYPES.get(settings.dtype) or platform.serving_dtype(files.dtype, kernels is not None)
    linear = _linear_method(settings, dtype, kernels)
    fusing = Deferred() if kernels is not None and linear is None else None
    model = load_model(
        files,
        platform,
        dtype=dtype,
        group=group,
        attention_backend=settings.attention or ("native" if kernels is not None else None),
        linear_method=linear,
        max_length=settings.max_model_len or None,
        progress=lambda done, total: progress(done / max(total, 1), "loading weights"),
        deferred=fusing,
    )
    progress(1.0, "making room for the KV cache")
    kv, max_model_len = _make_kv_cache(settings, model, platform)
    progress(1.0, "packing weights")
    engine = Engine(
        ModelRunner(model, kv, platform, _executor(settings, model, kv, fusing)),
        max_slots=settings.max_slots,
        max_model_len=max_model_len,
        page_size=settings.page_size,
        eos_token_ids=model.config.eos_token_ids,
    )
    sizes = Claimed(
        group_id="",
        groups=kv_groups(kv),
        max_slots=settings.max_slots,
        max_model_len=max_model_len,
        vocab_size=model.config.vocab_size,
        eos_token_ids=list(model.config.eos_token_ids),
        max_drafts=engine.drafts.most,
        length_keyed_above=model.config.rope.original_length if model.config.rope.length_dependent else 0,
    )
    log.info(
        "%s on %s in %s: %s pages of %d tokens (%.2f GiB), context %d",
        model.config.architecture,
        platform.name,
        str(model.dtype).removeprefix("torch."),
        " and ".join(f"{group.num_pages} {group.kind.value}" for group in sizes.groups),
        settings.page_size,
        kv.num_bytes / 2**30,
        max_model_len,
    )
    depth = 0 if platform.synchronous or engine.drafts.most else 1
    return Loaded(engine, RankOrder(group), sizes, depth, group)


def _executor(settings: ModelWorkerSettings, model: CausalLM, kv: KVCache, deferred: Deferred | None) -> Executor:
    if deferred is None:
        log.info("steps run layer by layer")
        return TorchExecutor(model, kv)
    return make_executor(model, kv, settings.quantization, exact=settings.exact_weights, deferred=deferred)


def _linear_method(settings: ModelWorkerSettings, dtype: torch.dtype, kernels: Native | None) -> LinearMethod | None:
    """How linear layers are run, if layer by layer. None: in torch, or all of a step at once by the fused decoder."""
    if kernels is None:
        return None
    if not settings.quantization and onednn_is_faster(kernels, dtype):
        log.info("linear layers run in oneDNN: on this CPU its products are more than twice as fast")
        return OneDnnLinear()
    return PackedLinear(kernels, settings.quantization) if settings.tp > 1 else None


def _cpu_kernels(platform: Platform, threads: int, progress: Progress) -> Native | None:
    """The CPU kernels, compiled now if this machine has not yet; None elsewhere and without a compiler."""
    if platform.name != "cpu":
        return None
    progress(0.0, "compiling the CPU kernels" if must_be_built() else "loading the CPU kernels")
    kernels = native()
    if kernels is None:
        return None
    kernels.set_threads(threads)
    if wrong := selfcheck(kernels):
        log.error("the CPU kernels do not work on this CPU, torch computes instead: %s", wrong)
        return None
    return kernels


def _device_offset(settings: ModelWorkerSettings) -> int:
    """Ranks on one machine take one device each; a CPU has no others to take."""
    return 0 if settings.device == "cpu" else settings.rank


def _make_kv_cache(settings: ModelWorkerSettings, model: CausalLM, platform: Platform) -> tuple[KVCache, int]:
    """The pools, and the longest sequence that both model and pools allow (tokens)."""
    specs = model.kv_groups(settings.page_size)
    counts = _agree(_num_pages(settings, specs, model, platform), model.group)
    bounds = [spec.longest(count) for spec, count in zip(specs, counts, strict=True)]
    longest = min([bound for bound in bounds if bound is not None], default=_LONGEST)
    max_model_len = min(model.max_length, longest)
    if settings.max_model_len > max_model_len:
        raise ConfigError(
            f"--max-model-len {settings.max_model_len} is more than the model ({model.max_length} tokens) or the "
            f"KV cache ({longest} tokens) allows"
        )
    return KVCache(specs, counts, platform.device), max_model_len


def _num_pages(
    settings: ModelWorkerSettings, specs: list[KVGroupSpec], model: CausalLM, platform: Platform
) -> list[int]:
    """By group: `--num-pages`, or as many as there is memory for; of a window's, no more than are of use."""
    most = [_useful_pages(settings, spec, model) for spec in specs]
    if settings.num_pages:
        return [
            settings.num_pages if spec.window is None else min(settings.num_pages, useful)
            for spec, useful in zip(specs, most, strict=True)
        ]
    budget = int(settings.kv_memory * 2**30) or platform.memory_budget(settings.memory_fraction)
    pages = pages_within(specs, most, budget)
    if min(pages) < 1:
        least = sum(spec.page_bytes for spec in specs)
        raise ConfigError(
            f"no memory for the KV cache: a page takes {least} bytes, and {budget} are to be had; "
            "see --kv-memory and --memory-fraction"
        )
    return pages


def _useful_pages(settings: ModelWorkerSettings, spec: KVGroupSpec, model: CausalLM) -> int:
    """More than every slot at full length is of use to the prefix cache only; twice that is plenty.

    A slot never has more of a window than it shows, and chunks of its prompt that are under way.
    """
    longest = model.max_length
    if spec.window is not None:
        longest = min(longest, spec.window + _CHUNKS_UNDER_WAY)
    return max(2 * settings.max_slots * -(-longest // settings.page_size), spec.least_pages)


def _agree(pages: list[int], group: ParallelGroup) -> list[int]:
    """The least of all ranks' counts, so that a page id means the same everywhere."""
    counts = group.all_gather(torch.tensor(pages, dtype=torch.int64).unsqueeze(1))
    least: list[int] = counts.amin(1).tolist()
    return least
