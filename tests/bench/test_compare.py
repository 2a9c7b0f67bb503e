"""benchmarks/compare.py: the order of runs, the figures, the table. No server is started."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks import checkpoints
from benchmarks.comparison import report
from benchmarks.comparison.openvino_server import to_load
from benchmarks.comparison.results import Measured, Results, Run, Spread, verdicts
from benchmarks.comparison.schedule import turns
from benchmarks.comparison.shapes import EOS, SHAPES
from benchmarks.comparison.workloads import MESH, NO_CACHE, OPENVINO, SERVERS, VLLM, WORKLOADS, choose
from radixmesh.bench.figures.metrics import figures, summarize
from radixmesh.bench.traffic.workload import Job

ONE, EIGHT, PREFIX = choose(["one"])[0], choose(["eight"])[0], choose(["prefix"])[0]


def results(values: dict[str, list[float]], workload: str = "eight", floor: float | None = None) -> Results:
    """`values`: by server, one for each repeat."""
    chosen = choose([workload])[0]
    made = Results("2026-01-01T00:00:00+00:00", {"cpu": "abacus"}, {})
    made.runs = [
        Measured(repeat, workload, server, Run({chosen.figure: value}))
        for server, column in values.items()
        for repeat, value in enumerate(column)
    ]
    if floor is not None:
        made.floors[chosen.shape] = [(10.0, floor)] * max(map(len, values.values()))
    return made


def test_shapes_have_the_sizes_of_the_models_they_stand_for() -> None:
    assert SHAPES["qwen3-0.6b"].parameters == pytest.approx(473e6, rel=0.005)
    assert SHAPES["qwen3-0.6b"].weight_bytes == pytest.approx(946e6, rel=0.005)
    assert SHAPES["llama-100m"].parameters == pytest.approx(100e6, rel=0.005)


def test_checkpoint_is_written_once_and_its_tokenizer_decodes_every_id(tmp_path: Path) -> None:
    shape = replace(SHAPES["llama-tiny"], layers=1, hidden=16, head_dim=8, heads=2, kv_heads=1, intermediate=16)
    directory = checkpoints.ensure(shape, tmp_path)
    written = (directory / "model.safetensors").stat()
    assert checkpoints.ensure(shape, tmp_path) == directory
    assert (directory / "model.safetensors").stat().st_mtime_ns == written.st_mtime_ns
    assert written.st_size == pytest.approx(shape.weight_bytes, abs=4096)
    assert list(tmp_path.iterdir()) == [directory]

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == shape.vocab
    assert tokenizer.id_to_token(EOS) == checkpoints.SPECIALS[EOS]
    letters = range(len(checkpoints.SPECIALS) + 256, shape.vocab)
    texts = tokenizer.decode_batch([[i] for i in letters])
    assert len(set(texts)) == len(texts)
    assert all(text.strip().isascii() and text.strip().isalpha() for text in texts)
    assert tokenizer.decode(tokenizer.encode("a quick fox, über\n12").ids) == "a quick fox, über\n12"


@pytest.mark.parametrize("vocab", [100, 10_000_000])
def test_tokenizer_of_an_impossible_size_is_refused(vocab: int) -> None:
    with pytest.raises(ValueError, match="would be right"):
        checkpoints.tokenizer_json(vocab)


def test_repeats_are_interleaved_and_every_server_gets_the_same_prompts() -> None:
    order = list(turns((ONE, PREFIX), SERVERS, 3))
    assert [turn.repeat for turn in order] == sorted(turn.repeat for turn in order)
    for repeat in range(3):
        for workload in (ONE, PREFIX):
            block = [turn for turn in order if (turn.repeat, turn.workload) == (repeat, workload)]
            assert {turn.server for turn in block} == set(workload.servers)
            assert len({turn.seed for turn in block}) == 1
    assert len({turn.seed for turn in order}) == 3 * 2
    firsts = [next(turn.server for turn in order if turn.workload is ONE and turn.repeat == i) for i in range(3)]
    assert len(set(firsts)) == 3


def test_fresh_servers_warm_up_with_a_full_batch() -> None:
    assert [turn.warmup for turn in turns((PREFIX,), [MESH], 2)] == [8, 2]
    assert [turn.warmup for turn in turns((PREFIX,), [NO_CACHE], 2)] == [8, 8]


def test_servers_that_no_workload_wants_get_no_turn() -> None:
    assert {turn.server for turn in turns((ONE,), [NO_CACHE, VLLM], 1)} == {VLLM}
    assert not list(turns((ONE,), [NO_CACHE], 1))


def test_unknown_workload_is_named() -> None:
    with pytest.raises(ValueError, match="no workload nine"):
        choose(["one", "nine"])
    assert choose(None) == WORKLOADS


def test_best_peer_depends_on_what_is_better() -> None:
    throughput = results({MESH: [50.0], VLLM: [90.0], OPENVINO: [100.0]})
    assert throughput.best_peer(EIGHT) == OPENVINO
    latency = results({MESH: [50.0], VLLM: [90.0], OPENVINO: [100.0]}, "one")
    assert latency.best_peer(ONE) == VLLM
    assert results({MESH: [50.0]}).best_peer(EIGHT) is None


def test_ratio_pairs_the_runs_of_a_repeat() -> None:
    # The machine got three times slower at half time: for both.
    made = results({MESH: [150.0, 150.0, 50.0], VLLM: [100.0, 100.0, 25.0]})
    assert made.ratio(EIGHT, MESH, VLLM) == Spread(1.5, 1.5, 2.0)


def test_targets_are_judged_by_the_median() -> None:
    (verdict,) = verdicts(results({MESH: [139.0, 141.0, 150.0], VLLM: [100.0] * 3}), EIGHT)
    assert verdict.met
    assert verdict.against == VLLM
    (verdict,) = verdicts(results({MESH: [130.0, 139.0, 150.0], VLLM: [100.0] * 3}), EIGHT)
    assert not verdict.met


@pytest.mark.parametrize(("milliseconds", "met"), [(40.9, True), (41.0, False)])
def test_floor_target_is_a_share_of_the_bandwidth(milliseconds: float, met: bool) -> None:
    (verdict,) = verdicts(results({MESH: [milliseconds]}, "one", floor=36.0), ONE)
    assert verdict.reached is not None
    assert verdict.reached.middle == pytest.approx(36.0 / milliseconds)
    assert verdict.met is met


def test_without_a_peer_nothing_is_judged() -> None:
    (verdict,) = verdicts(results({MESH: [100.0]}), EIGHT)
    assert verdict.reached is None
    assert not verdict.met


def test_report_says_what_was_reached_and_what_was_left_out(tmp_path: Path) -> None:
    made = results({MESH: [150.0, 160.0], VLLM: [100.0, 100.0]})
    made.left_out[OPENVINO] = "its environment is missing:\nrun peers.sh"
    made.starts["vllm, qwen3-0.6b"] = [70.0, 80.0]
    report.write(made, (ONE, EIGHT), tmp_path / "table")
    text = (tmp_path / "table.md").read_text()
    assert "| radixmesh: 150.0 / 155.0 / 160.0 | at least 1.4x vllm | 1.50 / 1.55 / 1.60 | yes |" in text
    assert "left out: openvino: its environment is missing: run peers.sh" in text
    assert "| vllm, qwen3-0.6b | 70.0 | 75.0 | 80.0 | 2 |" in text
    document = json.loads((tmp_path / "table.json").read_text())
    assert document["targets"]["eight"][0]["met"] is True
    assert len(document["runs"]) == 4


def test_run_of_the_bench_keeps_its_figures_and_tells_what_is_odd() -> None:
    over_runs = {"ttft_ms.p50": {"min": 1.0, "median": 2.0, "max": 3.0}}
    run = Run.from_bench({"runs": [{"errors": {}, "odd_length": 1}], "over_runs": over_runs})
    assert run.figures == {"ttft_ms.p50": 2.0}
    assert run.notes == ("1 answers of another length than asked for",)


def test_run_with_failed_requests_has_no_figures() -> None:
    run = Run.of({"ttft_ms.p50": 2.0}, {"HTTP 500": 2}, 0)
    assert run == Run({}, ("no figures, because of 2 x HTTP 500",))


def test_quick_loads_keep_what_makes_them_different() -> None:
    quick = [workload.quick() for workload in WORKLOADS]
    assert all(workload.requests <= 4 and workload.output_len <= 4 for workload in quick)
    assert [workload.name for workload in quick if workload.shared_prefix_len] == ["prefix"]


def test_time_stamps_of_a_server_in_process_become_figures() -> None:
    jobs = [Job(b"", input_len=128, output_len=3, prefix_len=0, at=0.0) for _ in range(2)]
    request = {"started": 10.0, "arrivals": [(11.0, 1), (11.1, 1), (11.3, 1)], "ended": 11.3, "error": None}
    failed = {"started": 10.0, "arrivals": [], "ended": 10.5, "error": "ended as IGNORED"}
    answer = {
        "began": 10.0,
        "ended": 12.0,
        "peak": 2,
        "cpu_s": 3.0,
        "requests": [request | {"index": 0}, failed | {"index": 1}],
    }
    summary = summarize(to_load(answer, jobs), {})
    values = figures(summary)
    assert values["ttft_ms.p50"] == pytest.approx(1000.0)
    assert values["tpot_ms.p50"] == pytest.approx(150.0)
    assert values["output_tokens_per_s"] == pytest.approx(1.5)
    assert summary.errors == {"ended as IGNORED": 1}
