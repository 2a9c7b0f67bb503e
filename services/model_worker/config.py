"""Settings of a model worker."""

from typing import Literal

from pydantic import Field

from radixmesh.shared.config import ModelName, ServiceSettings


class ModelWorkerSettings(ServiceSettings):
    """One rank of one worker group."""

    model: str = Field(description="Hugging Face model directory, or hub id.")
    served_model_name: ModelName = Field("", description="Name in requests; by default --model's last path component.")
    replica: str = Field("", description="Only the scheduler of this name may claim the group; empty: any may.")
    group: str = Field("", description="Name of the worker group; by default this instance's name.")
    rank: int = Field(0, ge=0, description="This process's rank in its group.")
    tp: int = Field(1, ge=1, le=64, description="Ranks in the group (tensor parallelism).")
    dist_init: str = Field("tcp://127.0.0.1:29500", description="Where the ranks of a group meet.")
    device: str = Field("auto", description="cpu, cuda, xpu, npu, or auto.")
    device_index: int = Field(0, ge=0, description="Which device of its kind; a group's rank is added.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Weights and KV cache.")
    load_format: Literal["auto", "dummy"] = Field("auto", description="dummy: random weights, for benchmarks.")
    quantization: Literal["", "w8a16", "w4a16"] = Field(
        "", description="Weights in 8 or 4 bits, rounded at load; on a CPU, by the kernels."
    )
    exact_weights: bool = Field(
        False, description="Keep bfloat16 weights bit for bit on CPUs where 12-bit integers are faster."
    )
    attention: str = Field("", description="Attention backend; by default the device's.")
    page_size: int = Field(16, ge=1, le=1024, description="Tokens per KV page.")
    num_pages: int = Field(
        0, ge=0, description="KV pages of each kind of layers, as far as windows have use for them; 0: by --kv-memory."
    )
    kv_memory: float = Field(0.0, ge=0, description="GiB for the KV cache; 0: by --memory-fraction.")
    memory_fraction: float = Field(0.6, gt=0, le=1, description="Share of the device's memory used in all.")
    max_slots: int = Field(128, ge=1, le=4096, description="Sequences that can run at once.")
    max_model_len: int = Field(0, ge=0, description="Tokens, prompt and output; 0: what the model was made for.")
    stream_interval_ms: float = Field(
        60.0, ge=0, description="Milliseconds for which tokens of a plan with several steps may wait for one another."
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads for the model; 0: all cores.")
