"""OpenVINO GenAI's continuous batching, without HTTP: its package has no server.

It runs in a process of its own environment, where `openvino_driver.py` drives it. The prompts are those of
`radixmesh bench`, and the figures are made by its code from the driver's time stamps. What a server and a client cost
is missing from them: they flatter it by that much.
"""

import argparse
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.comparison.processes import ServerError, Tree
from benchmarks.comparison.results import Run
from benchmarks.comparison.schedule import Turn
from benchmarks.comparison.servers import MAX_RUNNING, RUN_SECONDS, Options, Server
from benchmarks.comparison.shapes import Shape
from radixmesh.bench.figures.metrics import figures, summarize
from radixmesh.bench.flags import add_arguments
from radixmesh.bench.settings import Settings
from radixmesh.bench.traffic.client import Record
from radixmesh.bench.traffic.load import Load
from radixmesh.bench.traffic.stream import Usage
from radixmesh.bench.traffic.workload import Job, alphabet, make_run

DRIVER = Path(__file__).with_name("openvino_driver.py")


class OpenVino(Server):
    def __init__(self, name: str, options: Options, shape: Shape, checkpoint: Path) -> None:
        super().__init__(name, options, shape, checkpoint)
        self._home = options.peers / "openvino"
        self._tree: Tree | None = None

    @property
    def tree(self) -> Tree:
        assert self._tree is not None, "not started"  # noqa: S101
        return self._tree

    def start(self) -> float:
        """The export of the checkpoint to OpenVINO's format, done once, does not count."""
        if not (self._home / ".complete").exists():
            raise ServerError("its environment is missing: benchmarks/peers.sh openvino")
        model = self._export()
        self.require_memory()
        options = {
            "cache_gb": max(1, round(self.options.kv_gib)),
            "threads": self.options.threads,
            "max_running": MAX_RUNNING,
            "prefix_cache": True,
            "properties": {},
        }
        argv = [str(self._home / "bin" / "python"), str(DRIVER), str(model), json.dumps(options)]
        self._tree = Tree(argv, self._environ(), self.log(), pipes=True)
        try:
            properties = self._answer(self.options.start_seconds)["properties"]
        except BaseException:  # an interruption, too: nobody else knows of it yet
            self._tree.end()
            raise
        told = ", ".join(f"{name} {value}" for name, value in properties.items())
        self.settings = f"in process (no HTTP), prefix cache on, {told}"
        return time.perf_counter() - self._tree.started

    def run(self, turn: Turn) -> Run:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        flags = turn.workload.bench_flags(turn.seed, turn.warmup, self.shape.vocab)
        settings = Settings.from_args(parser.parse_args(flags))
        source = alphabet(settings)
        load = Load()
        for number in (0, 1):
            jobs, _ = make_run(settings, self.name, source, number)
            load = self._drive(jobs, turn.workload.concurrency)
        summary = summarize(load, {})
        return Run.of(figures(summary), summary.errors, summary.odd_length)

    def _drive(self, jobs: list[Job], concurrency: int) -> Load:
        bodies = [json.loads(job.body) for job in jobs]
        asked = [{"prompt": body["prompt"], "max_tokens": body["max_tokens"]} for body in bodies]
        try:
            self.tree.stdin.write(json.dumps({"concurrency": concurrency, "jobs": asked}).encode() + b"\n")
            self.tree.stdin.flush()
        except BrokenPipeError:
            raise ServerError(f"ended by itself:\n{self.tree.log_tail()}") from None
        return to_load(self._answer(RUN_SECONDS), jobs)

    def _answer(self, seconds: float) -> dict[str, Any]:
        """The next line of the driver. Raises ServerError."""
        readable, _, _ = select.select([self.tree.stdout], [], [], seconds)
        if not readable:
            raise ServerError(f"no answer within {seconds:.0f} s:\n{self.tree.log_tail()}")
        line = self.tree.stdout.readline()
        if not line:
            raise ServerError(f"ended by itself:\n{self.tree.log_tail()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _environ(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(self.options.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

    def _export(self) -> Path:
        """The checkpoint in OpenVINO's format, weights in bfloat16 as they are; made if need be. Raises ServerError."""
        directory = self.checkpoint.with_name(f"{self.checkpoint.name}-openvino")
        if directory.exists():
            return directory
        draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        command = [str(self._home / "bin" / "optimum-cli"), "export", "openvino", "--model", str(self.checkpoint)]
        command += ["--task", "text-generation-with-past", str(draft)]
        try:
            made = subprocess.run(
                command, env={**os.environ, **self._environ()}, capture_output=True, text=True, check=False
            )
            if made.returncode:
                raise ServerError(f"the export failed: {made.stderr.strip()[-500:]}")
            draft.replace(directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return directory


def to_load(answer: dict[str, Any], jobs: list[Job]) -> Load:
    """The driver's time stamps as the bench's own records: one arrival for each read that brought tokens."""
    load = Load(peak=answer["peak"], began=answer["began"], ended=answer["ended"], client_cpu_s=answer["cpu_s"])
    for request in answer["requests"]:
        job, arrivals = jobs[request["index"]], request["arrivals"]
        record = Record(request["index"], job, request["started"])
        record.arrivals = [at for at, _ in arrivals]
        tokens = sum(count for _, count in arrivals)
        record.events = len(arrivals)
        if arrivals:
            record.first_events = record.first_usage = arrivals[0][1]
            record.last = arrivals[-1][0]
        record.usage = Usage(job.input_len, tokens, None)
        record.finish_reason = "length"
        record.ended, record.error = request["ended"], request["error"]
        load.records.append(record)
    load.done = len(load.records)
    return load
