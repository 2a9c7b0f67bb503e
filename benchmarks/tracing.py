"""What tracing costs a request while it is off: every call into telemetry that a request makes on its way.

python -m benchmarks.tracing
"""

import timeit
from unittest.mock import Mock

import numpy as np

from radixmesh.services.model_worker.engine.outputs import StepResult
from radixmesh.services.model_worker.tracing import SequenceSpans
from radixmesh.shared import telemetry
from radixmesh.shared.messages import Admission, Work

REPEATS, CALLS = 5, 20_000


def best(label: str, call: object) -> float:
    """Prints and returns the least microseconds per call."""
    seconds = min(timeit.repeat(call, number=CALLS, repeat=REPEATS)) / CALLS  # type: ignore[arg-type]
    print(f"{label:48} {seconds * 1e6:8.3f} us")
    return seconds * 1e6


def main() -> None:
    assert not telemetry.enabled, "unset OTEL_EXPORTER_OTLP_ENDPOINT first"  # noqa: S101
    span = telemetry.start_span("x")
    spans = SequenceSpans()
    admission = Admission(
        slot=0,
        request_id="r",
        choice=0,
        attempt=0,
        detokenizer_id="d",
        prompt_ids=np.arange(4),
        work=Work(),
    )
    result = StepResult(rows=[Mock() for _ in range(32)])
    per_request = 3 * best("start a span (gateway, tokenizer, scheduler)", lambda: telemetry.start_span("x"))
    per_request += 3 * best("a span as message headers", lambda: telemetry.headers_of(span))
    per_request += 3 * best("message headers as a parent", lambda: telemetry.context_from(None))
    per_request += best("worker: a sequence is admitted", lambda: spans.admitted([admission]))
    per_step = best("worker: a step of 32 sequences", lambda: spans.advanced(result))
    print(f"\nper request about {per_request:.1f} us, per step {per_step:.2f} us")


if __name__ == "__main__":
    main()
