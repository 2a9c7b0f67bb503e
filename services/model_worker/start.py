"""From settings to a rank that is ready to run plans."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from radixmesh.services.model_worker.checkpoint.config import DTYPES
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.devices.choice import open_device
from radixmesh.services.model_worker.devices.device import Device, Wishes, memory_budget
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.devices.torch.linear import TorchLinear
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.engine.preparation import PreparedResults
from radixmesh.services.model_worker.engine.runner import ModelRunner
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVGroupSpec, pages_within
from radixmesh.services.model_worker.group.claim import kv_groups
from radixmesh.services.model_worker.group.inbox import Inbox
from radixmesh.services.model_worker.group.rank_order import OrderedInbox
from radixmesh.services.model_worker.layers.linear import Build
from radixmesh.services.model_worker.models import CausalLM, describe_model, load_model, open_model
from radixmesh.services.model_worker.parallel.mesh import Collectives, Mesh, MeshSizes
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
class Rank:
    """One that is ready to run plans."""

    engine: Engine
    inbox: Inbox
    sizes: Claimed
    """What a scheduler is told when it claims the group; `group_id` is filled in by the service."""
    depth: int
    """Steps launched before the oldest is collected."""
    mesh: Mesh

    def close(self) -> None:
        self.mesh.close()


def load(settings: ModelWorkerSettings, progress: Progress) -> Rank:
    """Loads model and KV pool.

    Raises:
        ModelLoadError, DeviceError, ConfigError: naming file and field, or the setting, at fault.
    """
    threads = settings.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    progress(0.0, "finding the model")
    files = open_model(resolve(settings.model), "dummy" if settings.load_format == "dummy" else "safetensors")
    # Ranks on one machine take one device each.
    index = settings.device_index + settings.rank
    device = open_device(settings.device, index, threads, lambda what: progress(0.0, what))
    if settings.tp > 1:
        progress(0.0, "meeting the other ranks")
    shape = MeshSizes(tp=settings.tp)
    mesh = Mesh.connect(settings.rank, shape, device.collectives, settings.dist_init, RANK_TIMEOUT_SECONDS)
    dtype = DTYPES.get(settings.dtype) or device.serving_dtype(files.dtype)
    length = settings.max_model_len or None
    build = Build(mesh, dtype, device.torch_device, TorchLinear(), TorchAttention())
    wishes = Wishes(settings.attention, settings.quantization, settings.exact_weights)
    execution = device.choose(describe_model(files, build, length), wishes)
    model = load_model(
        files,
        replace(build, linear=execution.linear, attention=execution.attention),
        length,
        progress=lambda done, total: progress(done / max(total, 1), "loading weights"),
        deferred=execution.deferred,
    )
    progress(1.0, "making room for the KV cache")
    kv, max_model_len = _make_kv_cache(settings, model, device)
    progress(1.0, "packing weights")
    engine = Engine(
        ModelRunner(model, kv, device, execution.executor(model, kv)),
        max_slots=settings.max_slots,
        max_model_len=max_model_len,
        page_size=settings.page_size,
        eos_token_ids=model.config.eos_token_ids,
        prepared=PreparedResults((), settings.rank),
    )
    sizes = _sizes(settings, engine)
    log.info(
        "%s on %s in %s: %s pages of %d tokens (%.2f GiB), context %d",
        model.config.architecture,
        device.name,
        str(model.dtype).removeprefix("torch."),
        " and ".join(f"{group.num_pages} {group.kind.value}" for group in sizes.groups),
        settings.page_size,
        kv.num_bytes / 2**30,
        max_model_len,
    )
    depth = 0 if device.traits.synchronous or engine.drafts.most else 1
    return Rank(engine, OrderedInbox(mesh.world.control), sizes, depth, mesh)


def _sizes(settings: ModelWorkerSettings, engine: Engine) -> Claimed:
    config = engine.runner.model.config
    return Claimed(
        group_id="",
        groups=kv_groups(engine.runner.kv),
        max_slots=settings.max_slots,
        max_model_len=engine.max_model_len,
        vocab_size=config.vocab_size,
        eos_token_ids=list(config.eos_token_ids),
        max_drafts=engine.drafts.most,
        ranks=settings.tp,
        prepares=engine.prepared.kinds,
        length_keyed_above=config.rope.original_length if config.rope.length_dependent else 0,
    )


def _make_kv_cache(settings: ModelWorkerSettings, model: CausalLM, device: Device) -> tuple[KVCache, int]:
    """The pools, and the longest sequence that both model and pools allow (tokens)."""
    specs = model.kv_groups(settings.page_size)
    counts = _agree(_num_pages(settings, specs, model, device), model.mesh.world.control)
    bounds = [spec.longest(count) for spec, count in zip(specs, counts, strict=True)]
    longest = min([bound for bound in bounds if bound is not None], default=_LONGEST)
    max_model_len = min(model.max_length, longest)
    if settings.max_model_len > max_model_len:
        raise ConfigError(
            f"--max-model-len {settings.max_model_len} is more than the model ({model.max_length} tokens) or the "
            f"KV cache ({longest} tokens) allows"
        )
    return KVCache(specs, counts, device.torch_device, device.zeros), max_model_len


def _num_pages(settings: ModelWorkerSettings, specs: list[KVGroupSpec], model: CausalLM, device: Device) -> list[int]:
    """By group: `--num-pages`, or as many as there is memory for; of a window's, no more than are of use."""
    most = [_useful_pages(settings, spec, model) for spec in specs]
    if settings.num_pages:
        return [
            settings.num_pages if spec.window is None else min(settings.num_pages, useful)
            for spec, useful in zip(specs, most, strict=True)
        ]
    budget = int(settings.kv_memory * 2**30) or memory_budget(device, settings.memory_fraction)
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


def _agree(pages: list[int], control: Collectives) -> list[int]:
    """The least of all ranks' counts, so that a page id means the same everywhere."""
    counts = control.all_gather(torch.tensor(pages, dtype=torch.int64).unsqueeze(1))
    least: list[int] = counts.amin(1).tolist()
    return least
