import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radixmesh.bench.settings import BenchError, Settings
from radixmesh.bench.traffic.words import WORDS
from radixmesh.bench.traffic.workload import Job, alphabet, make_run


def run(number: int = 1, **fields: Any) -> tuple[list[Job], list[Job]]:
    settings = Settings(url="http://localhost", **fields)
    return make_run(settings, "tiny", alphabet(settings), number)


def prompts(jobs: list[Job]) -> list[Any]:
    return [json.loads(job.body)["prompt"] for job in jobs]


def test_ids_have_exact_lengths_and_stay_clear_of_special_ones() -> None:
    jobs, _ = run(requests=20, input_len=(5, 9), output_len=(2, 3), vocab_size=500)
    assert {len(ids) for ids in prompts(jobs)} == {5, 6, 7, 8, 9}
    assert [len(ids) for ids in prompts(jobs)] == [job.input_len for job in jobs]
    assert all(100 <= i < 500 for ids in prompts(jobs) for i in ids)
    assert {job.output_len for job in jobs} == {2, 3}
    body = json.loads(jobs[0].body)
    assert body["max_tokens"] == jobs[0].output_len
    assert body["ignore_eos"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_the_same_seed_makes_the_same_run_and_each_run_its_own_prompts() -> None:
    fields = {"requests": 4, "shared_prefix_len": 8}
    assert run(**fields) == run(**fields)
    assert run(**fields) != run(**fields, seed=1)
    firsts = {tuple(ids[:8]) for number in range(4) for ids in prompts(run(number, **fields)[0])}
    assert len(firsts) == 4, "one prefix per run"


def test_shared_prefixes_are_dealt_out_evenly_and_on_top_of_the_input() -> None:
    jobs, warmers = run(requests=30, input_len=(4, 4), shared_prefix_len=16, shared_prefixes=3, warm_prefixes=True)
    counts: dict[tuple[int, ...], int] = {}
    for ids in prompts(jobs):
        assert len(ids) == 20
        counts[tuple(ids[:16])] = counts.get(tuple(ids[:16]), 0) + 1
    assert sorted(counts.values()) == [10, 10, 10]
    assert {tuple(ids[:16]) for ids in prompts(warmers)} == set(counts)
    assert all(job.output_len == 1 for job in warmers)
    assert all(job.prefix_len == 16 for job in jobs)


def test_poisson_arrivals() -> None:
    jobs, _ = run(requests=5000, input_len=(1, 1), request_rate=50.0, concurrency=None)
    times = [job.at for job in jobs]
    assert times[0] == 0
    assert times == sorted(times)
    gaps = np.diff(times)
    # Exponential: mean and standard deviation both 1 / rate.
    assert np.mean(gaps) == pytest.approx(0.02, rel=0.1)
    assert np.std(gaps) == pytest.approx(0.02, rel=0.15)


def test_chat_messages_are_words_and_extra_fields_win() -> None:
    jobs, _ = run(
        requests=1,
        endpoint="chat",
        prompt="text",
        input_len=(7, 7),
        ignore_eos=False,
        extra_body={"top_k": 1, "temperature": 0.5},
    )
    body = json.loads(jobs[0].body)
    words = body["messages"][0]["content"].split()
    assert len(words) == 7
    assert set(words) <= set(WORDS)
    assert "ignore_eos" not in body
    assert body["top_k"] == 1
    assert body["temperature"] == 0.5


def _word_tokenizer(path: Path, known: list[str]) -> Path:
    """Whole words that are known are one token, others one per character."""
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {token: i for i, token in enumerate(["<unk>", *known])}
    model = tokenizers.models.WordLevel(vocab, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    split = tokenizers.Regex("|".join([rf"\b{word}\b" for word in known]) + r"|\S")
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(split, "removed", invert=True)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def test_a_tokenizer_makes_text_lengths_exact(tmp_path: Path) -> None:
    folder = _word_tokenizer(tmp_path, list(WORDS[:40]))
    fields: dict[str, Any] = {"requests": 3, "prompt": "text", "input_len": (50, 50), "tokenizer": folder}
    jobs, _ = run(**fields)
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert [len(tokenizer.encode(text).ids) for text in prompts(jobs)] == [50, 50, 50]
    assert {word for text in prompts(jobs) for word in text.split()} <= set(WORDS[:40])


def test_a_tokenizer_gives_the_vocabulary_for_ids(tmp_path: Path) -> None:
    folder = _word_tokenizer(tmp_path, list(WORDS[:39]))
    jobs, _ = run(requests=9, tokenizer=folder / "tokenizer.json")
    assert {i for ids in prompts(jobs) for i in ids} == set(range(10, 40))


def test_tokenizers_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no file"):
        alphabet(Settings(url="", tokenizer=tmp_path))
    few = _word_tokenizer(tmp_path, list(WORDS[:5]))
    with pytest.raises(BenchError, match="too few"):
        alphabet(Settings(url="", prompt="text", tokenizer=few))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BenchError, match="cannot read"):
        alphabet(Settings(url="", tokenizer=tmp_path))
