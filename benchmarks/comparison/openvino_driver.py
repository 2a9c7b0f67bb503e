"""Runs OpenVINO GenAI's continuous batching in this process: its own environment's, not RadixMesh's.

    python openvino_driver.py MODEL_DIR \
        '{"cache_gb": 2, "threads": 2, "max_running": 64, "prefix_cache": true, "properties": {}}'

Standard input: one JSON object a line, {"concurrency": N, "jobs": [{"prompt": [id, ...], "max_tokens": N}, ...]}.
Standard output: {"properties": {...}} when it is ready, then for each line of input one object with time stamps, in
seconds on the system's monotonic clock, so that whoever reads them can measure as if it had been the client.
"""

import json
import os
import sys
import time
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai


def precisions() -> dict[str, str]:
    """16 bits wherever this CPU has them. Without bfloat16 arithmetic it computes in float32, on the bfloat16 weights.

    A KV cache of 8 bits, the default, would be another model.
    """
    if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return {"INFERENCE_PRECISION_HINT": "bf16", "KV_CACHE_PRECISION": "bf16"}
    return {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"}


def load(model: str, options: dict[str, Any], properties: dict[str, Any]) -> genai.ContinuousBatchingPipeline:
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = options["cache_gb"]
    scheduler.enable_prefix_caching = options["prefix_cache"]
    scheduler.max_num_seqs = options["max_running"]
    return genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)


class Driver:
    """So many requests at any time; the next one starts when one ends."""

    def __init__(self, pipeline: genai.ContinuousBatchingPipeline) -> None:
        self._pipeline = pipeline
        self._next_id = 0

    def run(self, jobs: list[dict[str, Any]], concurrency: int) -> dict[str, Any]:
        cpu, began, peak = time.process_time(), time.perf_counter(), 0
        waiting = list(enumerate(jobs))[::-1]
        live: list[tuple[dict[str, Any], Any]] = []
        requests: list[dict[str, Any]] = []
        while waiting or live:
            while waiting and len(live) < concurrency:
                index, job = waiting.pop()
                request = {"index": index, "started": time.perf_counter(), "arrivals": [], "ended": None, "error": None}
                requests.append(request)
                live.append((request, self._add(job)))
            peak = max(peak, len(live))
            self._pipeline.step()
            now = time.perf_counter()
            for request, handle in live:
                self._read(request, handle, now)
            live = [(request, handle) for request, handle in live if request["ended"] is None]
        return {
            "began": began,
            "ended": time.perf_counter(),
            "peak": peak,
            "cpu_s": time.process_time() - cpu,
            "requests": requests,
        }

    def _add(self, job: dict[str, Any]) -> Any:
        config = genai.GenerationConfig(max_new_tokens=job["max_tokens"], ignore_eos=True, do_sample=False)
        self._next_id += 1
        ids = ov.Tensor(np.array([job["prompt"]], np.int64))
        return self._pipeline.add_request(self._next_id, ids, config)

    @staticmethod
    def _read(request: dict[str, Any], handle: Any, now: float) -> None:
        status = handle.get_status()
        if handle.can_read():
            outputs = handle.read().values()
            request["arrivals"].append((now, sum(len(output.generated_ids) for output in outputs)))
        if status == genai.GenerationStatus.RUNNING:
            return
        request["ended"] = now
        if status != genai.GenerationStatus.FINISHED:
            request["error"] = f"ended as {status.name}"


def main() -> int:
    # The library may print; what it prints goes to standard error, and answers keep the pipe for themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    options = json.loads(sys.argv[2])
    properties = {"INFERENCE_NUM_THREADS": options["threads"], **precisions(), **options["properties"]}
    driver = Driver(load(sys.argv[1], options, properties))

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer({"properties": properties})
    for line in sys.stdin:
        answer(driver.run(**json.loads(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
