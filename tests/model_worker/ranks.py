"""Starts the ranks of a group, each a process of its own, and collects what they found."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(program: str, size: int, folder: Path, *words: str | Path) -> list[dict[str, Any]]:
    """Runs ``python -m program RANK SIZE RENDEZVOUS OUT WORD...`` once per rank. Gives what each wrote to OUT.

    Args:
        program: a module, as `tests.model_worker.group_rank`.
        folder: empty; for the rendezvous and the results.
    """
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    outs = [folder / f"rank{rank}.json" for rank in range(size)]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", program, str(rank), str(size), folder / "meet", out, *words],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
        )
        for rank, out in enumerate(outs)
    ]
    try:
        for process in ranks:
            errors = process.communicate(timeout=120)[1].decode()
            assert process.returncode == 0, errors
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    return [json.loads(out.read_text()) for out in outs]
