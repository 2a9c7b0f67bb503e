"""The whole engine as one function, `Replica.step`, with a queue where the mesh has a bus. Begin reading here.

    python -m radixmesh.local "What is the capital of France?" "What is the capital of Italy?"

    Submit ─▶ Encoder ─ Admit ─▶ SchedulerCore ─ StepPlan ─▶ Engine ─ TokenBatch ─▶ Table ─▶ text
                                      ▲                         │
                                      └────── StepReport ───────┘

Nothing is made for this file: these are the cores of tokenizer, scheduler, model_worker and detokenizer. As services
they have a bus around them, and the worker a thread (`step_loop`), on which an accelerator's next step is launched
before this one is collected.
"""

import argparse
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from radixmesh.services.detokenizer import vocabulary
from radixmesh.services.detokenizer.rows import TextRows
from radixmesh.services.detokenizer.table import Table
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.engine.outputs import StepResult, step_report, token_batches
from radixmesh.services.model_worker.start import load
from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.core import SchedulerCore
from radixmesh.services.tokenizer import encode, limits
from radixmesh.services.tokenizer.dispatch import dispatch
from radixmesh.services.tokenizer.routing.router import Route
from radixmesh.shared.errors import RadixMeshError, RequestError
from radixmesh.shared.messages import (
    Admit,
    Finish,
    Presence,
    RequestFailed,
    SamplingParams,
    State,
    StepPlan,
    Submit,
    Work,
)
from radixmesh.shared.model_files.model_source import bundled_model, resolve

HERE, EPOCH, FOREVER = "local", 1, float("inf")
ROUTE = Route(HERE, EPOCH, "only", matched_tokens=0)
DETOKENIZER = Presence(service="detokenizer", instance=HERE, epoch=EPOCH, state=State.READY)


class Replica:
    """A scheduler core, and the engine that it plans for."""

    def __init__(self, core: SchedulerCore, engine: Engine) -> None:
        self.core, self.engine = core, engine
        self.plans: deque[StepPlan] = deque()

    def step(self, arrived: Iterable[Admit], now: float) -> list[StepResult]:
        """Admits, plans, launches, collects, reports. Returns what the oldest plan gave, by forward pass.

        Raises:
            RequestError: a request cannot run here; neither it nor those behind it were admitted.
        """
        for admit in arrived:
            self.core.admit(admit, now)
        while (plan := self.core.next_plan(now)) is not None:  # ahead of the reports: it needs no token values
            self.plans.append(plan)
        if not self.plans:
            return []
        plan, began = self.plans.popleft(), time.perf_counter_ns()
        results = [self.engine.collect(self.engine.launch(plan, first=i == 0)) for i in range(max(plan.steps, 1))]
        self.core.report(step_report(plan, results, (time.perf_counter_ns() - began) // 1000, gap_us=0), now)
        return results


def stream(model: Path, submits: Iterable[Submit]) -> Iterator[TextRows]:
    """Answers `submits`, of which one arrives with each step. Gives each step's text, a row per answer that goes on.

    Raises:
        RadixMeshError: the model cannot be loaded, or a request cannot be served.
    """
    # The pages are small, so that short prompts have some in common.
    group = load(ModelWorkerSettings.checked({"model": str(model), "tp": 1, "page_size": 4}), lambda *_: None)
    replica = Replica(SchedulerCore(SchedulerSettings.load(), group.sizes, replica_id=HERE, epoch=EPOCH), group.engine)
    encoder, most = encode.load(model), limits.Limits(group.sizes.max_model_len, group.sizes.vocab_size)
    sent = deque(dispatch(each, encoder.encode(each, most), ROUTE, DETOKENIZER, FOREVER) for each in submits)
    table = Table(vocabulary.load(model))
    for request in sent:
        table.open(request.open_text, time.monotonic())
    while sent or not replica.core.idle:
        results = replica.step([sent.popleft().admit] if sent else [], time.monotonic())
        for _detokenizer, batch in token_batches(results, HERE, EPOCH, {}):
            yield table.tokens(batch, time.monotonic()).rows_for(HERE)
        for effect in replica.core.take_effects():
            if isinstance(effect.message, RequestFailed):
                raise RequestError(effect.message.code, effect.message.message)


def main() -> None:
    """Prints text as it comes, behind its prompt's number where there are several, and at each end what was used."""
    parser = argparse.ArgumentParser(prog="python -m radixmesh.local", description="Answers greedily, without a bus.")
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="a chat message; several are answered together")
    parser.add_argument("--text", action="store_true", help="PROMPT is no message, but the beginning of a text")
    parser.add_argument("--model", metavar="MODEL", help="directory or hub id; default: the model that comes along")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="tokens of an answer, at most (256)")
    args = parser.parse_args()
    if args.max_tokens < 1:
        parser.error("--max-tokens must be at least 1")
    asked = [{"text": it} if args.text else {"messages": [{"role": "user", "content": it}]} for it in args.prompts]
    work = Work(params=SamplingParams(temperature=0.0, max_tokens=args.max_tokens))
    alike = {"gateway_id": HERE, "model": HERE, "work": work, "cut_to_fit": True, "time_left": FOREVER}
    submits = [Submit(request_id=str(i), **alike, **each) for i, each in enumerate(asked, 1)]
    speaker = "1" if len(submits) == 1 else ""
    try:
        for rows in stream(resolve(args.model or str(bundled_model())), submits):
            for i, name in enumerate(rows.request_ids):
                print("" if name == speaker else f"\n[{name}] ", rows.texts[i], sep="", end="", flush=True)
                speaker = name
                if rows.finish[i] != Finish.RUNNING:
                    made = rows.first_index[i] + rows.counts[i]
                    print(f"\n[{name}] tokens: {rows.prompt_tokens[i]} in, {rows.cached_tokens[i]} cached, {made} out")
    except RadixMeshError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
