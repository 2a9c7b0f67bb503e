"""The fused decoder against transformers, token for token, and against the torch modules, number for number."""

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder, unfusable
from radixmesh.services.model_worker.devices.cpu.layers import NativeAttention, PackedLinear
from radixmesh.services.model_worker.devices.cpu.native import check
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models import CausalLM, open_model
from radixmesh.services.model_worker.models.describe import describe
from tests.checkpoints import FAMILIES, make_checkpoint
from tests.model_worker.kernel_fixtures import THREADS, library, relative
from tests.model_worker.loaded import CPU, load_model
from tests.model_worker.paged_driver import PagedDriver, Sequence
from tests.model_worker.parity_cases import COUNT, FEATURES, PROMPTS, checkpoint_and_tokens, reference


class FusedDriver(PagedDriver):
    """A driver whose model is fused. It takes the model's weights."""

    def __init__(self, model: CausalLM, page_size: int, quantization: Any = "") -> None:
        super().__init__(model, page_size)
        fused = FusedDecoder(model, self.kv, quantization)
        self.fused = fused

        class AsModel:
            device = model.device

            def __call__(self, batch: ForwardBatch, kv: KVCache) -> torch.Tensor:
                assert kv is fused.kv
                return fused(batch)

        self.model = AsModel()  # type: ignore[assignment]  # what the driver needs of a model


def load(path: Path, dtype: torch.dtype = torch.float32, **options: Any) -> CausalLM:
    return load_model(open_model(path), CPU, dtype=dtype, **options)


@pytest.mark.parametrize("case", FEATURES)
def test_greedy_tokens_equal_transformers(case: str) -> None:
    library().set_threads(2)
    path, expected = checkpoint_and_tokens(case)
    for page_size in (1, 16):
        driver = FusedDriver(load(path), page_size)
        assert [driver.alone(prompt, COUNT) for prompt in PROMPTS] == expected
        assert driver.mixed(PROMPTS, COUNT, chunk=6) == expected


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_states_equal_the_torch_modules(family: str, threads: int, tmp_path: Path) -> None:
    library().set_threads(threads)
    make_checkpoint(tmp_path, family)
    torch_driver, fused_driver = PagedDriver(load(tmp_path), 4), FusedDriver(load(tmp_path), 4)
    ours, theirs = [Sequence(p) for p in PROMPTS], [Sequence(p) for p in PROMPTS]
    for counts in ((5, 20, 7), (1, 3, 34), (1, 1, 1)):
        pairs = ((fused_driver, ours), (torch_driver, theirs))
        batches = [driver.batch(list(zip(sequences, counts, strict=True))) for driver, sequences in pairs]
        rows = torch.tensor([1, 0, len(batches[0].token_ids) - 1, 1])  # any order, any number of times
        fused, model = fused_driver.fused, torch_driver.model
        context = fused.begin(batches[0])
        got = fused.hidden_states(context, rows)
        expected = model.hidden_states(model.begin(batches[1], torch_driver.kv), rows)
        assert relative(got, expected) < 3e-6
        for mine, other, logits in zip(ours, theirs, fused.logits(got, context), strict=False):
            for sequence in (mine, other):
                sequence.tokens.append(int(logits.argmax()))
        for sequence, count in zip((*ours, *theirs), (*counts, *counts), strict=True):
            sequence.computed += count
    assert all(relative(a, b) < 3e-6 for a, b in zip(fused_driver.kv.values, torch_driver.kv.values, strict=True))


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> tuple[PagedDriver, FusedDriver]:
    """A torch and a fused driver of one model with odd sizes everywhere."""
    path = tmp_path_factory.mktemp("odd")
    with torch.inference_mode():
        sizes: Any = {"hidden_size": 76, "intermediate_size": 101, "vocab_size": 509, "head_dim": 20}
        make_checkpoint(path, "qwen3", num_attention_heads=6, **sizes)
        return PagedDriver(load(path), 3), FusedDriver(load(path), 3)


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12), threads=st.sampled_from(THREADS))
def test_any_mix_of_lengths(drivers: tuple[PagedDriver, FusedDriver], lengths: list[int], threads: int) -> None:
    library().set_threads(threads)
    logits = []
    for driver in drivers:
        sequences = [Sequence([(7 * i + length) % 500 for i in range(length)]) for length in lengths]
        logits.append(driver.step([(s, len(s.prompt)) for s in sequences]))
        logits.append(driver.step([(s, 1) for s in sequences]))
        for sequence in sequences:
            driver.release(sequence)
    for expected, got in zip(logits[:2], logits[2:], strict=True):
        torch.testing.assert_close(got, expected, atol=5e-5, rtol=5e-5)


def test_bfloat16_is_closer_to_float32_than_torch_is(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama")
    prompt = PROMPTS[2]
    exact = PagedDriver(load(tmp_path), 16).step([(Sequence(prompt), len(prompt))])
    torchs = PagedDriver(load(tmp_path, torch.bfloat16), 16).step([(Sequence(prompt), len(prompt))])
    fused = FusedDriver(load(tmp_path, torch.bfloat16), 16).step([(Sequence(prompt), len(prompt))])
    assert relative(fused, exact) < 0.03
    assert relative(fused, exact) < relative(torchs, exact)


@pytest.mark.parametrize(("quantization", "bound"), [("w8a16", 0.05), ("w4a16", 0.5)])
def test_quantized_logits_stay_near(quantization: str, bound: float, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "qwen2")
    prompt = PROMPTS[2]
    exact = PagedDriver(load(tmp_path), 16).step([(Sequence(prompt), len(prompt))])
    driver = FusedDriver(load(tmp_path), 16, quantization)
    rough = driver.step([(Sequence(prompt), len(prompt))])
    assert relative(rough, exact) < bound
    # And they do not depend on what else is in the batch.
    assert driver.alone(PROMPTS[1], COUNT) == driver.mixed(PROMPTS, COUNT, chunk=6)[1]


def test_nan_in_one_sequence_does_not_reach_another(tmp_path: Path) -> None:
    library().set_threads(2)
    make_checkpoint(tmp_path, "qwen3")
    driver = FusedDriver(load(tmp_path), 4)
    sequences = [Sequence(prompt) for prompt in PROMPTS]
    driver.step([(s, len(s.prompt)) for s in sequences])
    clean = driver.fused(driver.batch([(s, 1) for s in sequences]))
    for values in driver.kv.values:
        values[sequences[1].pages[0]] = float("nan")
    got = driver.fused(driver.batch([(s, 1) for s in sequences]))
    assert got[1].isnan().all()
    torch.testing.assert_close(got[[0, 2]], clean[[0, 2]], rtol=0, atol=0)


def test_stale_pages_do_not_matter(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "mistral", sliding_window=7)
    driver = FusedDriver(load(tmp_path), 16)
    expected = driver.alone(PROMPTS[1], COUNT)
    for pool in (*driver.kv.keys, *driver.kv.values):
        pool.fill_(float("nan"))
    assert driver.mixed([PROMPTS[1], PROMPTS[0]], COUNT, chunk=5)[0] == expected


def test_the_weights_move(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama", tie_word_embeddings=True)
    model = load(tmp_path)
    assert unfusable(describe(model)) == ""
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
    fused = FusedDecoder(model, KVCache(model.kv_groups(16), 4, model.device))
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2) == 0
    assert matrices * 4 <= fused.weight_bytes < matrices * 4 * 1.1


def test_a_step_may_want_no_logits(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama")
    driver = FusedDriver(load(tmp_path), 4)
    sequence = Sequence(PROMPTS[1])
    context = driver.fused.begin(driver.batch([(sequence, 20)]))
    hidden = driver.fused.hidden_states(context, torch.empty(0, dtype=torch.int64))
    assert driver.fused.logits(hidden, context).shape == (0, 512)
    sequence.computed = 20
    rest = driver.step([(sequence, 3)])
    expected = PagedDriver(load(tmp_path), 4).step([(Sequence(PROMPTS[1]), 23)])
    torch.testing.assert_close(rest, expected, atol=5e-5, rtol=5e-5)


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama")
    driver = FusedDriver(load(tmp_path), 4)
    fused = driver.fused
    with pytest.raises(IndexError, match="vocabulary"):
        driver.step([(Sequence([1, 512]), 2)])
    batch = driver.batch([(Sequence([1, 2]), 2)])
    with pytest.raises(IndexError, match="row"):
        fused.hidden_states(fused.begin(batch), torch.tensor([2]))
    batch.kv_locations[0][0] = driver.kv.pools[0].num_pages * 4
    with pytest.raises(IndexError, match="page"):
        fused(batch)
    batch.kv_locations[0][0], batch.positions[1] = 0, 10**6
    with pytest.raises(IndexError, match="position"):
        fused(batch)


@pytest.mark.parametrize(
    ("problem", "kind"), [(1, MemoryError), (2, IndexError), (3, IndexError), (4, IndexError), (5, IndexError)]
)
def test_an_error_holds_on_to_nothing_of_earlier_ones(problem: int, kind: type[Exception]) -> None:
    """An exception object that is raised again keeps the frames, and so the tensors, of every time before."""
    errors = []
    for _ in range(3):
        with pytest.raises(kind) as caught:
            check(problem)
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
    assert {len(list(traceback.walk_tb(error.__traceback__))) for error in errors} == {2}


def test_a_packed_model_cannot_be_fused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama")
    model = load(tmp_path, linear=PackedLinear(library()))
    with pytest.raises(ValueError, match="packed already"):
        FusedDecoder(model, KVCache(model.kv_groups(16), 4, model.device))


@pytest.mark.parametrize("family", FAMILIES)
def test_op_by_op_equals_transformers_too(family: str, tmp_path: Path) -> None:
    native = library()
    native.set_threads(2)
    theirs = make_checkpoint(tmp_path, family, tie_word_embeddings=family == "llama")
    expected = [reference(theirs, prompt, COUNT) for prompt in PROMPTS]
    model = load(tmp_path, linear=PackedLinear(native), attention=NativeAttention(native))
    assert PagedDriver(model, 16).mixed(PROMPTS, COUNT, chunk=6) == expected
