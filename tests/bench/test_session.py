"""The client against a real HTTP server in this process."""

import asyncio
import os
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from radixmesh.bench.session import Run, measure
from radixmesh.bench.settings import BenchError, Settings
from radixmesh.bench.traffic.load import Load

if TYPE_CHECKING:
    from tests.bench.conftest import FakeServer


async def measured(server: "FakeServer", *, stop: asyncio.Event | None = None, **fields: Any) -> list[Run]:
    small: dict[str, Any] = {"requests": 6, "concurrency": 3, "input_len": (8, 8), "output_len": (5, 5)}
    settings = Settings(url=server.url, **(small | {"warmup": 0} | fields))
    watched: list[Load] = []
    async with aclosing(measure(settings, stop or asyncio.Event(), watched.append)) as results:
        runs = [run async for run in results]
    assert [load.records for load in watched] == [run.records for run in runs]
    return runs


async def test_a_run_with_ids(server: "FakeServer") -> None:
    server.cached, server.delay = 2, 0.01
    (run,) = await measured(server, api_key="secret")
    summary = run.summary
    assert run.model == "tiny"
    assert (summary.completed, summary.failed, summary.cancelled, summary.errors) == (6, 0, 0, {})
    assert (summary.prompt_tokens, summary.output_tokens, summary.cached_tokens) == (48, 30, 12)
    assert (summary.odd_length, summary.uncounted) == (0, 0)
    assert summary.peak_concurrency == server.peak == 3
    assert 0 < summary.mean_concurrency <= 3
    assert summary.ttft_ms is not None
    assert summary.e2e_ms is not None
    assert 0 < summary.ttft_ms.mean < summary.e2e_ms.mean
    assert all(len(body["prompt"]) == 8 and body["model"] == "tiny" for body in server.seen)
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert server.headers[0]["Accept-Encoding"] == "identity"
    assert {record.finish_reason for record in run.records} == {"length"}


async def test_chat_skips_the_role_chunk(server: "FakeServer") -> None:
    server.usage = False
    (run,) = await measured(server, endpoint="chat", prompt="text", model="other")
    assert [record.events for record in run.records] == [5] * 6
    assert run.summary.uncounted == 6
    assert run.summary.output_tokens == 30
    assert run.summary.prompt_tokens == 48
    assert server.seen[0]["model"] == "other"


@pytest.mark.parametrize("model", [None, "tiny"])
async def test_ids_fit_the_vocabulary_that_the_server_tells(server: "FakeServer", model: str | None) -> None:
    server.vocab_size, server.largest_id = 262, 261
    (run,) = await measured(server, input_len=(64, 64), model=model)
    assert (run.summary.completed, run.vocab_size) == (6, 262)


@pytest.mark.parametrize("told", [None, 0, 1, "262", 151_936])
async def test_ids_are_below_1000_by_default(server: "FakeServer", told: object) -> None:
    server.vocab_size = told
    (run,) = await measured(server, input_len=(64, 64))
    assert run.vocab_size == 1000
    assert {100 <= i < 1000 for body in server.seen for i in body["prompt"]} == {True}


async def test_a_flag_goes_before_what_the_server_tells(server: "FakeServer") -> None:
    server.vocab_size = 262
    (run,) = await measured(server, vocab_size=5000)
    assert run.vocab_size == 5000


async def test_ids_that_the_server_refuses_are_told_with_the_flag_that_helps(server: "FakeServer") -> None:
    server.largest_id = 99
    with pytest.raises(BenchError, match=r"outside the model's vocabulary \(0 to 99\) \(see --vocab-size\)"):
        await measured(server, warmup=1)


async def test_a_server_without_a_list_of_models_needs_a_name(server: "FakeServer") -> None:
    server.lists_models = False
    (run,) = await measured(server, model="tiny")
    assert (run.model, run.vocab_size, run.summary.completed) == ("tiny", 1000, 6)
    with pytest.raises(BenchError, match="v1/models: HTTP 404"):
        await measured(server)


async def test_chunks_of_several_tokens(server: "FakeServer") -> None:
    server.per_chunk, server.delay, server.continuous_usage = 4, 0.02, True
    (run,) = await measured(server, output_len=(12, 12), requests=1, concurrency=1)
    (record,) = run.records
    assert (record.events, record.first_usage) == (3, 4)
    assert run.summary.output_tokens == 12
    assert run.summary.tokens_per_arrival is not None
    assert run.summary.tokens_per_arrival > 1
    assert run.summary.tpot_ms is not None
    assert run.summary.itl_ms is not None
    assert run.summary.tpot_ms.mean < run.summary.itl_ms.max


async def test_answers_of_another_length_are_noted(server: "FakeServer") -> None:
    server.shorten = 2
    (run,) = await measured(server)
    assert run.summary.odd_length == 6
    assert run.summary.failed == 0
    assert run.summary.output_tokens == 18


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"status": 404}, "HTTP 404: no such luck"),
        ({"error_after": 2}, "worker died"),
        ({"finish_reason": "abort"}, "the answer ended with finish_reason 'abort'"),
        ({"end_after": 2}, "the stream ended without a finish reason or [DONE]"),
        ({"shorten": 5}, "the stream ended without any output"),
        ({"plain_json": True}, "the answer is application/json, not text/event-stream"),
    ],
)
async def test_failures_are_counted_by_their_text(server: "FakeServer", knobs: dict[str, Any], message: str) -> None:
    vars(server).update(knobs)
    (run,) = await measured(server)
    assert (run.summary.completed, run.summary.failed) == (0, 6)
    assert run.summary.errors == {message: 6}
    assert run.summary.output_tokens == 0


async def test_a_connection_cut_in_mid_stream(server: "FakeServer") -> None:
    server.cut_after = 2
    (run,) = await measured(server, requests=2)
    assert run.summary.failed == 2
    assert len(run.summary.errors) == 1


async def test_a_request_that_takes_too_long(server: "FakeServer") -> None:
    server.hang = True
    (run,) = await measured(server, timeout=0.2, requests=2)
    assert run.summary.errors == {"no complete answer within the time limit": 2}


async def test_some_failures_leave_the_others_measured(server: "FakeServer") -> None:
    server.fail_every = 3
    (run,) = await measured(server)
    assert (run.summary.completed, run.summary.failed) == (4, 2)
    assert run.summary.output_tokens == 20


async def test_poisson_arrivals_do_not_wait_for_answers(server: "FakeServer") -> None:
    server.delay = 0.05
    (run,) = await measured(server, concurrency=None, request_rate=200.0, requests=20)
    assert run.summary.completed == 20
    assert run.summary.peak_concurrency > 5
    starts = [record.started for record in run.records]
    assert starts == sorted(starts)
    assert starts[-1] - starts[0] == pytest.approx(run.records[-1].job.at)


async def test_no_request_is_started_after_max_seconds(server: "FakeServer") -> None:
    server.delay = 0.05
    for pace in ({"concurrency": 2}, {"concurrency": None, "request_rate": 20.0}):
        (run,) = await measured(server, max_seconds=0.2, requests=1000, **pace)
        assert 1 <= run.summary.completed < 100
        assert (run.summary.failed, run.summary.cancelled) == (0, 0)


async def test_stop_keeps_what_there_is(server: "FakeServer") -> None:
    server.delay = 0.02
    stop = asyncio.Event()
    task = asyncio.create_task(measured(server, stop=stop, requests=1000, repeats=3))
    await server.requests(7)
    stop.set()
    (run,) = await asyncio.wait_for(task, 10)
    assert run.summary.completed >= 3
    assert run.summary.cancelled == 3
    assert run.summary.failed == 0
    assert run.summary.completed + 3 == len(run.records)


async def test_warm_up_and_repeats(server: "FakeServer") -> None:
    runs = await measured(server, warmup=2, repeats=3, shared_prefix_len=4, shared_prefixes=2, warm_prefixes=True)
    assert [run.summary.completed for run in runs] == [6, 6, 6]
    assert len(server.seen) == 2 + 3 * (2 + 6)
    assert sum(body["max_tokens"] == 1 for body in server.seen) == 6
    assert len({tuple(body["prompt"][:4]) for body in server.seen}) == 8, "two prefixes for each run"


async def test_a_warm_up_that_fails_entirely_ends_it(server: "FakeServer") -> None:
    server.status = 404
    with pytest.raises(BenchError, match="the warm-up failed: HTTP 404: no such luck"):
        await measured(server, warmup=2, model="missing")
    assert len(server.seen) == 2


async def test_no_server(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(BenchError, match=rf"v1/models: cannot connect to 127.0.0.1:{unused_tcp_port}: "):
        await anext(measure(Settings(url=url), asyncio.Event(), lambda load: None))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_cpu_time_of_named_processes(server: "FakeServer") -> None:
    (run,) = await measured(server, pid_cpu=(("me", os.getpid()),), cpu_of_tree=os.getpid())
    assert set(run.summary.cpu_s) == {"client", "me", "tree", "tree, rest"}
    assert run.cpu_error is None
    assert run.summary.cpu_ms_per_output_token["client"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_a_watched_process_that_ends_costs_only_its_own_figures(server: "FakeServer") -> None:
    server.delay = 0.05
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    task = asyncio.create_task(measured(server, pid_cpu=(("brief", process.pid),)))
    await server.requests(3)
    await process.communicate(b"\n")
    (run,) = await task
    assert run.summary.completed == 6
    assert set(run.summary.cpu_s) == {"client"}
    assert run.cpu_error == f"cannot measure CPU time: no process {process.pid}"
