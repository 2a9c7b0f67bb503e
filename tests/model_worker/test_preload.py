"""What a worker begins before torch is imported."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from radixmesh.services.model_worker import preload
from radixmesh.services.model_worker.devices.cpu import arena

MEGA = 1 << 20


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four megabytes of weights, on a machine without accelerators."""
    for name in ("KERNELS", "QUANTIZATION", "TP", "DEVICE", "DTYPE", "LOAD_FORMAT"):
        monkeypatch.delenv(f"RADIXMESH_{name}", raising=False)
    monkeypatch.setattr(preload, "_accelerators", lambda: False)
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(bytes(2 * MEGA))
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    return tmp_path


def test_the_weights_room_is_known_from_flags_and_files(model: Path) -> None:
    assert preload.packed_bytes(["--model", str(model), "--threads", "2"]) == 3 * MEGA
    assert preload.packed_bytes([f"--model={model}", "--tp", "1", "--dtype=auto", "--device", "cpu"]) == 3 * MEGA
    assert preload.packed_bytes(["--model", "someone/some-model"]) == 0
    assert preload.packed_bytes(["--model", str(model), "--dtype", "bfloat16"]) == 3 * MEGA
    assert preload.packed_bytes([]) == 0
    for config in ("{", "[]"):
        (model / "config.json").write_text(config)
        assert preload.packed_bytes(["--model", str(model)]) == 0


@pytest.mark.parametrize(
    "flags", ["--tp 2", "--quantization=w4a16", "--dtype float32", "--device cuda", "--load-format dummy"]
)
def test_nothing_is_begun_where_it_might_be_another(model: Path, flags: str) -> None:
    assert preload.packed_bytes(["--model", str(model), *flags.split()]) == 0


@pytest.mark.parametrize(("name", "value"), [("KERNELS", "torch"), ("QUANTIZATION", "w8a16"), ("TP", "2")])
def test_the_environment_counts_too(model: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"RADIXMESH_{name}", value)
    assert preload.packed_bytes(["--model", str(model)]) == 0


def test_nothing_is_begun_beside_an_accelerator(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "_accelerators", lambda: True)
    assert preload.packed_bytes(["--model", str(model)]) == 0


def test_an_arena_begins_with_what_was_prepared() -> None:
    arena.prepare(24 * MEGA)
    arena.prepare(MEGA)  # once is enough
    first, second = arena.Arena(), arena.Arena()
    addresses = [first.take(size) for size in (MEGA, 20 * MEGA)]
    assert addresses[0][1] is addresses[1][1]
    assert addresses[1][0] - addresses[0][0] == MEGA
    assert first.take(4 * MEGA)[1] is not addresses[0][1]
    assert second.take(MEGA)[1] is not addresses[0][1]
    for address, _ in addresses:
        assert address % 256 == 0
        assert ctypes.string_at(address, MEGA) == bytes(MEGA)


def test_what_is_not_taken_is_given_back() -> None:
    arena.prepare(8 * MEGA)
    packed = arena.Arena()
    address, _owner = packed.take(3 * MEGA + 100)
    ctypes.memset(address, 1, 8 * MEGA)
    packed.finish()
    assert ctypes.string_at(address, 3 * MEGA + 100) == b"\1" * (3 * MEGA + 100)
    assert ctypes.string_at(address + 4 * MEGA, 4 * MEGA) == bytes(4 * MEGA)


def test_what_was_prepared_is_given_back_if_it_does_not_fit() -> None:
    arena.prepare(MEGA)
    address, _ = arena.Arena().take(2 * MEGA)
    ctypes.memset(address, 1, 2 * MEGA)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("flags", "there"), [([], False), (["--nats-url", "tls://h:1"], False), (["--nats-url=wss://h:1"], True)]
)
def test_aiohttp_is_there_for_web_sockets_and_for_others(flags: list[str], there: bool) -> None:
    code = (
        "import sys; from radixmesh.services.model_worker import preload; preload.begin()\n"
        "import nats.aio.transport as transport; print(transport.aiohttp is not None)\n"
        "import aiohttp; aiohttp.ClientSession"
    )
    command = [sys.executable, "-c", code, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str(there)


@pytest.mark.processes
def test_it_imports_next_to_nothing() -> None:
    code = "import sys; from radixmesh.services.model_worker import preload; print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
