"""Sampling: distributions, filters against a naive reference, independence of the batch, penalties, logprobs."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.model_worker.forward.traits import DeviceTraits
from radixmesh.services.model_worker.sampling.columns import SamplingBatch, SamplingRow
from radixmesh.services.model_worker.sampling.sampler import SampleOutput, Sampler, token_logprobs
from radixmesh.shared.messages import SamplingParams

CPU = torch.device("cpu")
NOTHING = np.empty(0, np.int64)
SAMPLER = Sampler(DeviceTraits(synchronous=True))


def row(
    vocab: int,
    choice: int = 0,
    prompt: list[int] | None = None,
    output: list[int] | None = None,
    end_ids: tuple[int, ...] = (),
    **params: Any,
) -> SamplingRow:
    ids = [np.array(x or [], np.int64) for x in (prompt, output)]
    return SamplingRow(SamplingParams.model_validate(params), choice, vocab, CPU, ids[0], ids[1], end_ids)


def sample(logits: torch.Tensor, rows: list[SamplingRow], positions: Any = 0) -> SampleOutput:
    batch = SamplingBatch(rows, logits.shape[1], CPU)
    where = np.broadcast_to(np.asarray(positions), len(rows))
    return SAMPLER.sample(logits.clone(), batch, where)


def noise(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def naive_support(logits: list[float], params: SamplingParams) -> set[int]:
    """Tokens that survive temperature, top_k, top_p, min_p, one after the other, as their papers define them."""
    scaled = [value / params.temperature for value in logits]
    order = sorted(range(len(scaled)), key=lambda token: -scaled[token])
    if 0 < params.top_k < len(order):
        order = order[: params.top_k]
    weights = [math.exp(scaled[token] - scaled[order[0]]) for token in order]
    kept: list[int] = []
    before = 0.0
    for token, weight in zip(order, weights, strict=True):
        if params.top_p < 1.0 and before >= params.top_p * sum(weights) and kept:
            break
        kept.append(token)
        before += weight
    return {t for t in kept if math.exp(scaled[t] - scaled[order[0]]) >= params.min_p}


def draws(logits: torch.Tensor, count: int, **params: Any) -> np.ndarray:
    """`count` tokens of one sequence whose logits never change: int64 [count]."""
    tokens = []
    for start in range(0, count, 500):
        size = min(500, count - start)
        rows = [row(logits.shape[0], **params) for _ in range(size)]
        tokens.append(sample(logits.expand(size, -1), rows, start + np.arange(size)).tokens.numpy())
    return np.concatenate(tokens)


def chi_square(observed: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """(statistic, its 0.1 % point, by Wilson and Hilferty); cells expected below 5 are pooled."""
    expected = probabilities * observed.sum()
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
    if expected[-1] < 1e-6:
        observed, expected = observed[:-1], expected[:-1]
    freedom = len(expected) - 1
    point = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3
    return float(((observed - expected) ** 2 / expected).sum()), point


@pytest.mark.parametrize(
    "params",
    [{}, {"temperature": 0.5}, {"temperature": 1.7, "top_k": 12}, {"top_p": 0.8}, {"min_p": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("vocab", [40, 1300])
def test_tokens_follow_the_distribution(params: dict[str, float], vocab: int) -> None:
    logits = noise(vocab, seed=vocab)
    wanted = SamplingParams.model_validate({"temperature": 1.0, **params})
    keep = list(naive_support(logits.tolist(), wanted))
    probabilities = np.zeros(vocab)
    probabilities[keep] = torch.softmax(logits[keep].double() / wanted.temperature, 0).numpy()
    observed = np.bincount(draws(logits, 6000, seed=123, **params), minlength=vocab)
    assert set(np.flatnonzero(observed)) <= set(keep)
    statistic, point = chi_square(observed, probabilities)
    assert statistic < point


@given(
    data=st.data(),
    vocab=st.integers(2, 1500),
    temperature=st.floats(0.2, 3.0),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1.0),
    min_p=st.sampled_from([0.0, 0.05, 0.3]),
    scale=st.sampled_from([0.05, 1.0, 4.0]),
)
@settings(max_examples=80)
def test_filters_equal_a_naive_reference(
    data: st.DataObject,
    vocab: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    scale: float,
) -> None:
    """Read through the quantiles: each row's uniform number decides, so many positions probe the whole support."""
    logits = noise(vocab, seed=data.draw(st.integers(0, 2**31)), scale=scale)
    params = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    support = naive_support(logits.tolist(), SamplingParams.model_validate(params))
    tokens = draws(logits, 60, seed=data.draw(st.integers(0, 2**64 - 1)), **params)
    # Rounding may move the edge of top_p by a token whose neighbours hold almost exactly top_p.
    for shift in (-1e-6, 1e-6):
        moved = params | {"top_p": min(1.0, top_p * (1 + shift))}
        support |= naive_support(logits.tolist(), SamplingParams.model_validate(moved))
    assert set(tokens.tolist()) <= support
    if len(support) == 1:
        assert set(tokens.tolist()) == support


@pytest.mark.parametrize(
    ("params", "size"),
    [({"top_k": 7}, 7), ({"top_p": 0.6}, None), ({"min_p": 0.5}, None), ({"top_k": 9, "top_p": 0.9}, None)],
    ids=str,
)
def test_every_survivor_is_drawn_sooner_or_later(params: dict[str, float], size: int | None) -> None:
    logits = noise(2000, scale=0.3)  # flat: a nucleus of several hundred tokens
    logits[:5] += 5.0
    support = naive_support(logits.tolist(), SamplingParams.model_validate(params))
    assert size is None or len(support) == size
    seen = set(draws(logits, 4000, seed=5, **params).tolist())
    assert seen <= support
    if len(support) < 20:
        assert seen == support


def test_a_nucleus_wider_than_the_shortlist_is_found() -> None:
    logits = noise(4000, scale=0.01)
    support = naive_support(logits.tolist(), SamplingParams(top_p=0.9))
    assert len(support) > 3000
    seen = draws(logits, 3000, seed=1, top_p=0.9)
    assert set(seen.tolist()) <= support
    assert len(set(seen.tolist())) > 1500


def test_ties_at_the_edge_are_kept() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, 2.0, 2.0, 0.0])
    assert set(draws(logits, 300, top_k=2).tolist()) == {1, 2, 3, 4}


def test_greedy_takes_the_largest() -> None:
    logits = noise(6, 300)
    for params in ({"temperature": 0.0}, {"temperature": 1e-9}, {"top_k": 1}):
        out = sample(logits, [row(300, **params)] * 6)
        assert out.tokens.tolist() == logits.argmax(-1).tolist()


def random_params(index: int) -> dict[str, Any]:
    """A different way of sampling for each index."""
    return {
        "temperature": [0.0, 0.7, 1.0, 2.0][index % 4],
        "top_k": [0, 20, 1, 3000][index // 4 % 4],
        "top_p": [1.0, 0.9, 0.3][index % 3],
        "min_p": [0.0, 0.02][index // 2 % 2],
        "repetition_penalty": [1.0, 1.3][index // 3 % 2],
        "frequency_penalty": [0.0, 0.4][index // 5 % 2],
        "logit_bias": {} if index % 7 else {3: 5.0, 9: -4.0},
        "seed": index // 2,
        "logprobs": None if index % 5 else index % 4,
    }


def test_a_row_does_not_depend_on_its_batch() -> None:
    vocab, count = 2500, 24
    logits = noise(count, vocab, scale=1.5)

    def rows() -> list[SamplingRow]:
        return [row(vocab, i % 3, [1, 2, 3], [4, 4, i], **random_params(i)) for i in range(count)]

    positions = np.arange(count) * 3
    together = sample(logits, rows(), positions).tokens
    alone = [sample(logits[i : i + 1], rows()[i : i + 1], positions[i]).tokens.item() for i in range(count)]
    assert together.tolist() == alone
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    shuffled = [rows()[i] for i in order.tolist()]
    again = sample(logits[order], shuffled, positions[order.numpy()]).tokens
    assert again.tolist() == together[order].tolist()


def test_streams_repeat_and_differ_by_seed_choice_and_position() -> None:
    logits = noise(1000, scale=0.1)
    base = draws(logits, 50, seed=2**63 + 9)
    assert base.tolist() == draws(logits, 50, seed=2**63 + 9).tolist()
    # A resumed sequence goes on where it was: the last 20 alone are the same.
    rows = [row(1000, seed=2**63 + 9)] * 20
    resumed = sample(logits.expand(20, -1), rows, np.arange(30, 50)).tokens
    assert resumed.tolist() == base[30:].tolist()
    for other in ({"seed": 10}, {"seed": 9}, {"seed": 2**63 + 9, "choice": 1}):
        assert (draws(logits, 50, **other) != base).sum() > 40


def test_a_broken_row_fails_alone() -> None:
    logits = noise(6, 700)
    expected = sample(logits, [row(700, top_p=0.9, seed=i) for i in range(6)]).tokens
    logits[1, 5] = float("nan")
    logits[2, 600] = float("inf")
    logits[3] = float("-inf")
    logits[4, :650] = float("-inf")  # a mask, not a failure
    ways: list[dict[str, Any]] = [{"top_p": 0.9}, {"top_k": 5}, {"temperature": 0.0}, {"min_p": 0.1}]
    for params in [*ways, {"logprobs": 2}, {"top_k": 5, "top_p": 0.5}]:
        out = sample(logits, [row(700, seed=i, **params) for i in range(6)])
        assert out.failed.tolist() == [False, True, True, True, False, False]
        assert int(out.tokens[4]) >= 650
        if params == {"top_p": 0.9}:
            assert out.tokens[[0, 5]].tolist() == expected[[0, 5]].tolist()


LEAST = 5e-324  # the smallest of all doubles: zero as a float32
EDGES: dict[str, list[float]] = {
    "temperature": [0.0, LEAST, 1e-45, 1e-38, 9e-6, 1e-5, 2.0],
    "top_p": [LEAST, 1e-38, 1 - 1e-16, 1.0],
    "min_p": [0.0, LEAST, 1e-38, 1.0],
    "repetition_penalty": [LEAST, 1e-320, 1e-45, 1e-38, 1e-6, 2.0],
    "presence_penalty": [-2.0, LEAST, 2.0],
    "frequency_penalty": [-2.0, LEAST, 2.0],
}


@given(params=st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in EDGES.items()}))
@settings(max_examples=200)
def test_no_parameter_makes_logits_that_are_not_finite(params: dict[str, Any]) -> None:
    logits = noise(1, 64, scale=30.0)
    bias = {3: 100.0, 4: -100.0, 5: LEAST}
    out = sample(logits, [row(64, prompt=[1, 2, 3], output=[3, 4, 4], logit_bias=bias, **params)])
    assert not out.failed.any()
    assert 0 <= int(out.tokens[0]) < 64


def test_penalties() -> None:
    vocab = 64
    logits = noise(1, vocab)
    prompt, output = [1, 2, 2], [5, 5, 5, 6]
    given: dict[str, Any] = {"repetition_penalty": 1.5, "presence_penalty": 0.3, "frequency_penalty": 0.2}
    penalized = row(vocab, 0, prompt, output, **given)
    got = logits[0].clone()
    penalized.penalize(got)
    expected = logits[0].clone()
    for token in {*prompt, *output}:
        expected[token] = expected[token] / 1.5 if expected[token] > 0 else expected[token] * 1.5
    for token in set(output):
        expected[token] -= 0.3 + 0.2 * output.count(token)
    torch.testing.assert_close(got, expected)


def test_observed_tokens_are_penalized_from_then_on() -> None:
    logits = torch.zeros(2, 30)
    logits[:, 7] = 1.0
    batch = SamplingBatch([row(30, temperature=0.0, presence_penalty=1.5), row(30, temperature=0.0)], 30, CPU)
    zero = np.zeros(2, np.int64)
    first = SAMPLER.sample(logits.clone(), batch, zero).tokens
    batch.observe(first)
    second = SAMPLER.sample(logits.clone(), batch, zero).tokens
    assert first.tolist() == [7, 7]
    assert int(second[0]) != 7
    assert int(second[1]) == 7


def test_logit_bias_forces_and_forbids() -> None:
    logits = noise(2, 50)
    best = logits[1].argmax().item()
    rows = [row(50, logit_bias={11: 100.0}), row(50, temperature=0.0, logit_bias={best: -100.0, 999: 1.0})]
    tokens = sample(logits, rows).tokens
    assert int(tokens[0]) == 11
    assert int(tokens[1]) == int(logits[1].topk(2).indices[1])


def test_ends_are_barred_until_min_tokens() -> None:
    logits = torch.zeros(1, 20)
    logits[0, 4] = 9.0
    ended = row(20, end_ids=(4, 5), temperature=0.0, min_tokens=3)
    for position, allowed in ((0, False), (2, False), (3, True)):
        assert (int(sample(logits, [ended], position).tokens) == 4) == allowed


def test_logprobs_are_the_models_own() -> None:
    logits = noise(4, 90)
    rows = [
        row(90, temperature=0.0),
        row(90, logprobs=0, seed=3),
        row(90, logprobs=5, temperature=0.3, logit_bias={8: 3.0}, presence_penalty=1.0, output=[1]),
        row(90, logprobs=200, top_k=4),
    ]
    out = sample(logits, rows)
    assert out.logprobs is not None
    assert out.logprobs.rows.tolist() == [1, 2, 3]
    assert out.logprobs.counts.tolist() == [0, 5, 200]
    expected = torch.log_softmax(logits.double(), -1)
    for place, index in enumerate((1, 2, 3)):
        chosen = expected[index, out.tokens[index]].item()
        assert out.logprobs.chosen[place].item() == pytest.approx(chosen, abs=1e-5)
        top = expected[index].topk(5)
        assert out.logprobs.top_ids[place, :5].tolist() == top.indices.tolist()
        torch.testing.assert_close(out.logprobs.top[place, :5].double(), top.values)
    assert sample(logits, rows[:1] * 4).logprobs is None


def test_token_logprobs_of_a_prompt() -> None:
    logits = noise(5, 40)
    tokens = torch.tensor([1, 2, 3, 4, 39])
    chosen, ids, values = token_logprobs(logits, tokens, 3)
    expected = torch.log_softmax(logits, -1)
    torch.testing.assert_close(chosen, expected[torch.arange(5), tokens])
    torch.testing.assert_close(values, expected.gather(1, ids))
    assert ids.shape == (5, 3)


def test_a_greedy_batch_computes_no_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("a greedy batch needs no exponentials")

    monkeypatch.setattr(Sampler, "_draw", forbidden)
    assert sample(noise(3, 10), [row(10, temperature=0.0)] * 3).tokens.shape == (3,)
