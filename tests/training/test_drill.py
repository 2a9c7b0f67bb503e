"""The drills' tokens, and the heads that are set by hand."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from training import tokenizer
from training.data import Batch
from training.drill import LENGTH, mixed, repeats, sums
from training.headstart import BACK, MATCH, Sample, give, states
from training.model import Model, Shape
from training.tokenizer import CONTROL, MARKUP, VOCAB

SMALL = Shape(hidden=128, layers=5, heads=4, kv_heads=2, inner=96)


def test_what_repeats_counts_and_what_is_new_does_not() -> None:
    batch = next(repeats(1024, seed=3))
    assert batch.ids.shape == (1024 // LENGTH, LENGTH)
    assert int(batch.ids.min()) >= len(CONTROL) + len(MARKUP)
    rows, columns = batch.places // LENGTH, batch.places % LENGTH
    assert torch.equal(batch.targets, batch.ids[rows, columns + 1])
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        assert int(batch.ids[row, column + 1]) in batch.ids[row, : column + 1].tolist()
    assert len(batch.places) > batch.ids.numel() / 3


def test_sums_are_right_and_their_results_count(tmp_path: Path) -> None:
    tokenizer.save(tokenizer.make(tokenizer.texts(300, seed=9)), tmp_path, max_length=4096)
    words = tokenizer.load(tmp_path)
    batch = next(sums(words, 512, seed=3))
    lines = str(words.decode(batch.ids.reshape(-1).tolist())).split("\n")[:-1]
    assert len(lines) > 30
    for line in lines:
        asked, answer = line.removesuffix(".").split(" = ")
        assert eval(asked.replace("×", "*")) == int(answer)  # noqa: S307
    digits = str(words.decode(batch.targets.tolist())).replace(" ", "")
    assert "".join(line.split(" = ")[1].removesuffix(".") for line in lines[:5]).startswith(digits[:5])


def test_every_source_has_its_share() -> None:
    def endless(tokens: int) -> Batch:
        return Batch(torch.zeros(1, 1), torch.zeros(0), torch.zeros(0), torch.zeros(0), tokens)

    def stream(tokens: int):  # type: ignore[no-untyped-def]
        while True:
            yield endless(tokens)

    found = [batch.tokens for batch in islice(mixed(stream(1), [(0.2, stream(2)), (0.0, stream(3))], seed=1), 1000)]
    assert 150 < found.count(2) < 250
    assert found.count(3) == 0


@torch.no_grad()
def test_the_heads_find_what_came_after_the_same_token_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a model that has learned nothing, a repeated token already makes what followed it likelier."""
    model = Model(SMALL, seed=2)
    model.model.embed_tokens.weight.normal_(0, 0.5).add_(0.3)  # as training makes them: with something in common
    random = torch.Generator().manual_seed(4)
    ids = torch.randint(9, VOCAB, (48, 64), generator=random)
    give(model, Sample(ids, torch.ones_like(ids, dtype=torch.bool) & (torch.arange(64) > 2)), (0, 0))
    fresh = torch.randint(9, VOCAB, (16, 20), generator=random)
    twice = torch.cat((fresh, fresh), 1)
    seen: list[torch.Tensor] = []

    def attend(q, k, v, attn_mask=None, is_causal=False):  # type: ignore[no-untyped-def]
        scores = (q @ k.mT) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
        seen.append(scores.softmax(-1))
        return seen[-1] @ v

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attend)
    model(twice)
    places = torch.arange(24, 40)
    for back, head in enumerate(range(SMALL.heads // SMALL.kv_heads), 1):
        assert float(seen[BACK][:, head, places, places - back].mean()) > 0.3
    assert float(seen[MATCH][:, 0, places, places - 19].mean()) > 3 / 40
    assert states(model, twice, MATCH)[1].shape == (16, 40, SMALL.hidden)
