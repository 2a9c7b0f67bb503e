"""Figures from records with made-up times."""

import itertools
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.bench.figures.metrics import Spread, figures, over_runs, summarize, tpot_ms
from radixmesh.bench.traffic.client import Record
from radixmesh.bench.traffic.load import Load
from radixmesh.bench.traffic.stream import Usage
from radixmesh.bench.traffic.workload import Job


def job(prefix: int = 0) -> Job:
    return Job(b"", input_len=10, output_len=5, prefix_len=prefix, at=0.0)


def record(
    started: float, arrivals: list[float], ended: float, *, tokens: int = 5, cached: int | None = None
) -> Record:
    return Record(
        0,
        job(),
        started,
        arrivals=arrivals,
        events=len(arrivals),
        first_events=1,
        last=arrivals[-1],
        usage=Usage(10, tokens, cached),
        finish_reason="length",
        ended=ended,
    )


def test_one_run() -> None:
    failed = Record(2, job(), 1.0, ended=2.0, error="HTTP 500: no")
    cancelled = Record(3, job(), 3.0)
    load = Load(
        records=[
            record(0.0, [1.0, 1.1, 1.2, 1.3, 1.4], 1.5, cached=4),
            record(0.0, [2.0, 2.2, 2.4, 2.6, 2.8], 3.0, cached=6),
            failed,
            cancelled,
        ],
        peak=3,
        began=0.0,
        ended=4.0,
        client_cpu_s=0.1,
    )
    summary = summarize(load, {"worker": 2.0})
    assert (summary.completed, summary.failed, summary.cancelled) == (2, 1, 1)
    assert (summary.prompt_tokens, summary.cached_tokens, summary.output_tokens) == (20, 10, 10)
    assert summary.output_tokens_per_s == 2.5
    assert summary.total_tokens_per_s == 7.5
    assert summary.requests_per_s == 0.5
    assert summary.mean_concurrency == pytest.approx((1.5 + 3.0 + 1.0 + 1.0) / 4)
    assert summary.tokens_per_arrival == 1.0
    assert summary.ttft_ms is not None
    assert list(asdict(summary.ttft_ms).values()) == pytest.approx([1500, 1500, 1900, 1990, 2000])
    assert summary.tpot_ms is not None
    assert summary.tpot_ms.mean == pytest.approx(150)
    assert summary.itl_ms is not None
    assert summary.itl_ms.max == pytest.approx(200)
    assert summary.e2e_ms is not None
    assert summary.e2e_ms.max == 3000
    assert summary.errors == {"HTTP 500: no": 1}
    assert summary.cpu_s == {"client": 0.1, "worker": 2.0}
    assert summary.cpu_ms_per_output_token == {"client": pytest.approx(10), "worker": pytest.approx(200)}


def test_a_run_in_which_nothing_completed() -> None:
    load = Load(records=[Record(0, job(), 0.0, ended=1.0, error="no")], began=0.0, ended=1.0)
    summary = summarize(load, {})
    assert summary.ttft_ms is None
    assert summary.cached_tokens is None
    assert summary.tokens_per_arrival is None
    assert summary.cpu_ms_per_output_token == {}
    assert summary.output_tokens_per_s == 0


def test_time_per_token_when_arrivals_bring_several() -> None:
    # 9 tokens: one first, then twice four. The gaps are what a reader sees; per token it is a quarter.
    grouped = record(0.0, [1.0, 1.4, 1.8], 1.8, tokens=9)
    assert tpot_ms(grouped) == pytest.approx(100)
    # Four came with the first arrival, as two chunks in one read show, or as a usage says.
    grouped.first_events = 2
    assert tpot_ms(grouped) == pytest.approx(800 / 7)
    grouped.first_usage = 4
    assert tpot_ms(grouped) == pytest.approx(800 / 5)


def test_no_time_per_token_for_a_single_arrival() -> None:
    assert tpot_ms(record(0.0, [1.0], 1.0, tokens=1)) is None
    assert tpot_ms(record(0.0, [1.0], 1.0, tokens=5)) is None


def test_chunks_count_where_no_usage_came() -> None:
    silent = record(0.0, [1.0, 1.1, 1.2], 1.2)
    silent.usage = None
    summary = summarize(Load(records=[silent], began=0.0, ended=2.0), {})
    assert (summary.output_tokens, summary.prompt_tokens, summary.uncounted) == (3, 10, 1)
    assert summary.odd_length == 1


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_ordered_and_within_the_values(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread is not None
    ordered = [min(values), spread.p50, spread.p90, spread.p99, spread.max]
    slack = 1e-9 * max(values)
    assert all(low <= high + slack for low, high in itertools.pairwise(ordered))
    assert spread.max == max(values)
    assert min(values) - slack <= spread.mean <= max(values) + slack


@given(
    st.lists(
        st.lists(st.floats(0.001, 10), min_size=2, max_size=8),  # gaps of one request, in seconds
        min_size=1,
        max_size=8,
    )
)
def test_figures_of_a_run_add_up(gaps: list[list[float]]) -> None:
    records = []
    for request in gaps:
        times = list(itertools.accumulate(request))
        records.append(record(0.0, times, times[-1], tokens=len(times)))
    end = max(item.ended or 0.0 for item in records)
    summary = summarize(Load(records=records, peak=len(records), began=0.0, ended=end), {})
    assert summary.output_tokens == sum(map(len, gaps))
    assert summary.output_tokens_per_s == pytest.approx(summary.output_tokens / end)
    assert summary.mean_concurrency <= summary.peak_concurrency * (1 + 1e-9)
    assert summary.itl_ms is not None
    assert summary.itl_ms.max == pytest.approx(1e3 * max(gap for request in gaps for gap in request[1:]))
    assert summary.ttft_ms is not None
    assert summary.e2e_ms is not None
    assert summary.ttft_ms.max <= summary.e2e_ms.max


def test_over_runs_gives_min_median_max_of_what_all_have() -> None:
    def run(end: float, cached: int | None) -> Load:
        return Load(records=[record(0.0, [1.0, 2.0], 2.0, cached=cached)], began=0.0, ended=end)

    summaries = [summarize(run(10.0, 3), {}), summarize(run(5.0, None), {}), summarize(run(2.0, 3), {})]
    spread = over_runs(summaries)
    assert spread["output_tokens_per_s"] == (0.5, 1.0, 2.5)
    assert spread["ttft_ms.p50"] == (1000, 1000, 1000)
    assert "cached_tokens" not in spread
    assert figures(summaries[0])["cached_tokens"] == 3
