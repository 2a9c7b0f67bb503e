"""Packed linear layers against float64, whatever the shape, the storage and the number of threads."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.model_worker.devices.cpu.layers import NativeAttention, PackedLinear
from radixmesh.services.model_worker.devices.cpu.packed import Format, PackedWeight
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVGroupSpec
from radixmesh.services.model_worker.layers.linear import Build, ColumnLinear
from radixmesh.services.model_worker.parallel.mesh import Mesh
from tests.model_worker.kernel_fixtures import THREADS, library, relative

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FORMS = [Format(5, 128), Format(5, 32), Format(3, 128), Format(3, 32), Format(4, 32), Format(4, 64), Format(4, 128)]
STEPS = {5: 4078, 3: 254, 4: 15}  # from the least to the greatest weight of a group
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 25, 40)

SPEC = KVGroupSpec((0,), 1, 2, 1, torch.float32)


def context() -> ForwardContext:
    """Of a step that is of no interest."""
    nothing = np.zeros(1, np.int64)
    cpu = torch.device("cpu")
    batch = ForwardBatch.from_numpy(nothing, nothing, [nothing], nothing, nothing, [nothing[None]], nothing, cpu)
    return ForwardContext(batch, KVCache([SPEC], 1, torch.device("cpu")))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def group_largest(values: torch.Tensor, form: Format) -> torch.Tensor:
    padded = torch.nn.functional.pad(values, (0, -values.shape[1] % form.group))
    return padded.view(len(padded), -1, form.group).abs().amax(-1)


@settings(max_examples=60)
@given(
    rows=st.integers(1, 40),
    n=st.integers(1, 130),
    k=st.integers(1, 300),
    dtype=st.sampled_from(DTYPES),
    bias=st.booleans(),
    threads=st.sampled_from(THREADS),
)
def test_products_are_exact_to_rounding(
    rows: int, n: int, k: int, dtype: torch.dtype, bias: bool, threads: int
) -> None:
    native = library()
    native.set_threads(threads)
    x, w, b = random(rows, k, seed=n), random(n, k, seed=k).to(dtype), random(n, seed=rows).to(dtype)
    packed = PackedWeight(native, [w], [b] if bias else None)
    expected = x.double() @ w.double().T + (b.double() if bias else 0.0)
    bound = 1e-6 * (x.abs().double() @ w.abs().double().T + 1.0)
    assert ((packed.multiply(x).double() - expected).abs() <= bound).all()
    torch.testing.assert_close(packed.rows(0, n), w.float(), rtol=0, atol=0)


@settings(max_examples=40)
@given(
    rows=st.integers(1, 20),
    n=st.integers(1, 70),
    k=st.integers(1, 400),
    form=st.sampled_from(FORMS),
    threads=st.sampled_from(THREADS),
)
def test_quantized_products_are_exact_for_the_weights_stored(
    rows: int, n: int, k: int, form: Format, threads: int
) -> None:
    native = library()
    native.set_threads(threads)
    x, w = random(rows, k, seed=n), random(n, k, seed=k).bfloat16()
    packed = PackedWeight(native, [w], form=form)
    stored = packed.rows(0, n)
    # Rows are rounded to 16 (14) bits of their group's largest value, which is 5 at most.
    got, expected = packed.multiply(x), x.double() @ stored.double().T
    step = 5.0 / (8191 if form.kind == 5 else 32767)
    assert ((got.double() - expected).abs() <= step / 2 * stored.abs().double().sum(1) + 1e-5).all()
    largest, error = group_largest(w.float(), form), group_largest(w.float() - stored, form)
    assert (error <= largest * (2.0 / STEPS[form.kind or 0]) * 1.02 + 1e-30).all()


@pytest.mark.parametrize(("quantization", "bound"), [("w8a16", 0.008), ("w4a16", 0.1), ("", 0.00045)])
def test_quantization_error_of_normal_weights(quantization: str, bound: float) -> None:
    w = random(256, 1024).bfloat16() * 0.02
    packed = PackedWeight(library(), [w], form=Format.of(quantization, False, w.dtype, True))  # type: ignore[arg-type]  # a name from a parameter
    assert bound / 4 < relative(packed.rows(0, 256), w) < bound


@pytest.mark.parametrize("rows", ROWS)
def test_every_tile_height(rows: int) -> None:
    native = library()
    native.set_threads(2)
    x, w = random(rows, 512), random(200, 512).bfloat16()
    assert relative(PackedWeight(native, [w]).multiply(x), x @ w.float().T) < 1e-6
    for form in (Format(3, 128), Format(4, 32), Format(5, 128)):
        packed = PackedWeight(native, [w], form=form)
        assert relative(packed.multiply(x), x.double() @ packed.rows(0, 200).double().T) < 5e-4


@pytest.mark.parametrize("form", [Format(), Format(3, 128), Format(4, 32), Format(5, 128)])
def test_many_rows_cover_several_slabs(form: Format) -> None:
    native = library()
    native.set_threads(3)
    x, w = random(1030, 160), random(48, 160).bfloat16()
    packed = PackedWeight(native, [w], form=form)
    assert relative(packed.multiply(x), x.double() @ packed.rows(0, 48).double().T) < 5e-4


@pytest.mark.parametrize("form", [Format(), Format(3, 128), Format(4, 32), Format(5, 128)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_row(form: Format, bad: float) -> None:
    packed = PackedWeight(library(), [random(64, 256).bfloat16()], form=form)
    x = random(9, 256)
    clean = packed.multiply(x)
    x[4, 17] = bad
    got = packed.multiply(x)
    assert not got[4].isfinite().any()
    others = torch.arange(9) != 4
    torch.testing.assert_close(got[others], clean[others], rtol=0, atol=0)


@pytest.mark.parametrize("form", [Format(), *FORMS])
def test_rows_and_threads_do_not_change_bits(form: Format) -> None:
    native = library()
    x, w = random(37, 320), random(100, 320).bfloat16()
    packed = PackedWeight(native, [w], form=form)
    native.set_threads(1)
    expected = packed.multiply(x)
    for threads in THREADS:
        native.set_threads(threads)
        for row in (0, 5, 36):
            torch.testing.assert_close(packed.multiply(x[row : row + 1])[0], expected[row], rtol=0, atol=0)


@pytest.mark.parametrize(("quantization", "bound"), [("", 0.01), ("w8a16", 0.02), ("w4a16", 0.12)])
def test_linear_method_replaces_the_parameter(quantization: str, bound: float) -> None:
    method = PackedLinear(library(), quantization)  # type: ignore[arg-type]
    build = Build(Mesh(), torch.bfloat16, torch.device("cpu"), method, NativeAttention(library()))
    layer = ColumnLinear(96, 40, True, build)
    layer.weight.copy_(random(40, 96))
    assert layer.bias is not None
    layer.bias.copy_(random(40, seed=1))
    x = random(5, 96, seed=2).bfloat16()
    expected = torch.nn.functional.linear(x.float(), layer.weight.float(), layer.bias.float())
    layer.finish()
    assert layer.weight.numel() == 0
    got = layer(x, context())
    assert got.dtype is torch.bfloat16
    assert relative(got, expected) < bound


def test_matrices_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        PackedWeight(library(), [random(8, 8), random(8, 9)])


def test_rows_that_do_not_exist_are_refused() -> None:
    packed = PackedWeight(library(), [random(8, 8)])
    with pytest.raises(IndexError, match="of 8"):
        packed.rows(4, 5)


def test_the_largest_numbers_do_not_overflow() -> None:
    x, w = torch.full((7, 256), -3.0), torch.full((16, 256), 2.0)
    for form in (Format(5, 128), Format(3, 128), Format(4, 128)):
        for sign in (-1.0, 1.0):
            got = PackedWeight(library(), [w * sign], form=form).multiply(x)
            torch.testing.assert_close(got, torch.full((7, 16), -1536.0 * sign), rtol=0.01, atol=0)
