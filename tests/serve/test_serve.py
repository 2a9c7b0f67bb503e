"""`radixmesh serve` as people use it: real processes, the bundled model, the `openai` client."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import psutil
import pytest
from safetensors.torch import load_file, save_file

from radixmesh.cli import main
from radixmesh.cli.serve.ready import is_ready
from radixmesh.shared.model_files.model_source import bundled_model
from tests.serving import ServeProcess, all_gone, wait_for

PROMISED_END = 5.0
"""Seconds from SIGTERM to the exit of `radixmesh serve`."""

SMALL = ("--dtype", "float32", "--max-model-len", "512", "--max-slots", "8", "--threads", "1")


BUS_NAMESPACE = f"serve{os.getpid()}"


def complete(mesh: ServeProcess, prompt: str = "Once upon a time", max_tokens: int = 16) -> str:
    """A greedy completion of just `max_tokens` tokens."""
    with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", timeout=60, max_retries=0) as client:
        answer = client.completions.create(
            model=mesh.model, prompt=prompt, max_tokens=max_tokens, temperature=0, extra_body={"ignore_eos": True}
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == max_tokens
    return answer.choices[0].text


def serves_again(mesh: ServeProcess) -> Callable[[], bool]:
    """For `wait_for`: requests may be refused while a service is away, never answered wrongly."""

    def attempt() -> bool:
        try:
            return bool(complete(mesh))
        except (openai.APIStatusError, openai.APIConnectionError):
            return False

    return attempt


def ends_in_time(mesh: ServeProcess) -> None:
    """SIGTERM while an answer is being streamed; everything must be gone soon after."""
    pids = list(mesh.pids().values())
    with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", timeout=60, max_retries=0) as client:
        stream = client.completions.create(
            model=mesh.model, prompt="a", max_tokens=400, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        began = time.monotonic()
        assert mesh.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < PROMISED_END
    assert all_gone(pids)
    assert not mesh.state  # the state file is put away


@pytest.fixture(scope="module")
def mesh() -> Iterator[ServeProcess]:
    with ServeProcess(*SMALL, "--gateways", "2") as mesh:
        yield mesh


@pytest.fixture(scope="module")
def one_rank(mesh: ServeProcess) -> str:
    """What a worker group of one answers."""
    return complete(mesh, max_tokens=24)


def test_completes_text(mesh: ServeProcess, one_rank: str) -> None:
    assert complete(mesh, max_tokens=24) == one_rank


def test_streams_chat(mesh: ServeProcess) -> None:
    with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", timeout=60) as client:
        stream = client.chat.completions.create(
            model=mesh.model, messages=[{"role": "user", "content": "Hello!"}], max_tokens=8, stream=True
        )
        chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")


def test_the_banner_has_a_curl_line_that_works(mesh: ServeProcess) -> None:
    wait_for(lambda: "Try:" in mesh.output, 60, "the banner")
    assert "RadixMesh serves radixmesh-tiny" in mesh.output
    (line,) = [line.strip() for line in mesh.output.splitlines() if line.strip().startswith("curl ")]
    done = subprocess.run(["/bin/bash", "-c", f"{line} --fail -sS"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"chat.completion"' in done.stdout


def test_no_secret_is_on_a_command_line_or_in_a_log(mesh: ServeProcess) -> None:
    token = mesh.state["nats_token"]
    assert len(token) >= 32
    for process in (psutil.Process(mesh.process.pid), *psutil.Process(mesh.process.pid).children(recursive=True)):
        assert token not in " ".join(process.cmdline())
    assert all(token not in path.read_text() for path in mesh.log_dir.glob("*.log"))


def test_the_bus_refuses_strangers(mesh: ServeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADIXMESH_NATS_TOKEN", raising=False)
    assert main(["health", "gateway", "--nats-url", mesh.state["nats_url"], "--timeout", "2"]) == 1


def test_every_service_is_healthy_and_listed(
    mesh: ServeProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in mesh.bus_environ.items():
        monkeypatch.setenv(name, value)
    for service in ("gateway", "tokenizer", "scheduler", "model-worker", "detokenizer"):
        assert main(["health", service, "--timeout", "10"]) == 0
    capsys.readouterr()
    assert main(["ps"]) == 0
    listed = capsys.readouterr().out
    assert all(instance in listed for instance in mesh.pids() if instance != "nats-server")


@pytest.mark.parametrize(
    "instances", [("tokenizer-0", "r0", "gateway-0"), ("detokenizer-0", "worker-r0-0", "nats-server")]
)
def test_those_who_are_killed_come_back_and_the_others_stay(mesh: ServeProcess, instances: tuple[str, ...]) -> None:
    """Several at a time, which is the harder case; tests/e2e kills them one by one, under load."""
    before = complete(mesh)
    others = {name: pid for name, pid in mesh.pids().items() if name not in instances}
    told = mesh.output.count("was killed by SIGKILL")
    killed = {instance: mesh.kill(instance) for instance in instances}
    for instance, pid in killed.items():
        mesh.wait_restarted(instance, pid)
    wait_for(serves_again(mesh), 120, f"an answer after {', '.join(instances)} were killed")
    assert complete(mesh) == before
    assert {name: pid for name, pid in mesh.pids().items() if name not in instances} == others
    assert mesh.output.count("was killed by SIGKILL") == told + len(instances)


def test_orderly_ends_of_one_service_end_nothing_else(mesh: ServeProcess) -> None:
    """Any number of them: one that served is started again for ever."""
    others = {name: pid for name, pid in mesh.pids().items() if name != "gateway-1"}
    port = int(mesh.state["urls"][1].rpartition(":")[2])

    def second_gateway_is_ready() -> bool:
        return asyncio.run(is_ready("127.0.0.1", port))

    for _ in range(3):
        wait_for(second_gateway_is_ready, 60, "gateway-1 to be ready", alive=mesh.process)
        mesh.wait_restarted("gateway-1", mesh.kill("gateway-1", signal.SIGTERM))
    wait_for(second_gateway_is_ready, 60, "gateway-1 to be ready", alive=mesh.process)
    assert mesh.output.count("gateway-1 exited with 0; starting it again") == 3
    assert {name: pid for name, pid in mesh.pids().items() if name != "gateway-1"} == others


def test_sigterm_ends_everything_in_time_even_with_a_request_running(mesh: ServeProcess) -> None:
    """Last of those that use `mesh`, for it ends it."""
    assert len(mesh.pids()) == 7  # the NATS server too
    ends_in_time(mesh)


def test_no_orphan_is_left_when_the_supervisor_is_killed() -> None:
    with ServeProcess(*SMALL, wait=False) as mesh:
        wait_for(lambda: len(mesh.pids()) == 6, 60, "the processes to start", alive=mesh.process)
        pids = list(mesh.pids().values())
        mesh.process.kill()
        wait_for(lambda: all_gone(pids), 30, "the children to die with their supervisor")
        mesh.process.wait()


def test_ctrl_c_while_it_starts_ends_it_too() -> None:
    with ServeProcess(*SMALL, wait=False) as mesh:
        wait_for(lambda: len(mesh.pids()) == 6, 60, "the processes to start", alive=mesh.process)
        pids = list(mesh.pids().values())
        began = time.monotonic()
        assert mesh.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < PROMISED_END
        assert all_gone(pids)
        assert "Traceback" not in mesh.output
        assert mesh.output.count("stopping ...\n") == 1


@pytest.mark.parametrize("flag", ["--port", "--grpc-port"])
def test_a_port_in_use_is_named_before_anything_starts(
    tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = "--grpc-port" if flag == "--port" else "--port"
        assert main(["serve", "--log-dir", str(tmp_path / "logs"), flag, str(port), other, "0"]) == 2
    said = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 cannot be used" in said
    assert f"by {flag}" in said
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", str(tmp_path), "--port", "0", "--grpc-port", "0"]) == 1
    assert "has no config.json" in capsys.readouterr().err


def test_a_model_with_a_missing_weight_ends_the_serve_with_its_name(tmp_path: Path) -> None:
    model = Path(shutil.copytree(bundled_model(), tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors")
    with ServeProcess(*SMALL, "--model", str(model), wait=False) as mesh:
        assert mesh.process.wait(120) == 1
        live, last = mesh.output.split("radixmesh serve:")
    assert live.count("model.layers.1.mlp.up_proj.weight") == 1
    assert last.startswith(" worker-r0-0 exited with 2 before it was ready; what it said is above")
    assert "model.layers.1.mlp.up_proj.weight" not in last


@pytest.fixture(scope="module")
def group(nats_url: str) -> Iterator[ServeProcess]:
    """Two ranks, on a bus that was there before."""
    with ServeProcess(*SMALL, "--nats-url", nats_url, "--namespace", BUS_NAMESPACE, "--tp", "2") as mesh:
        yield mesh


def test_names_on_a_bus_of_others_are_our_own(group: ServeProcess) -> None:
    own = f"-{socket.gethostname()}-{group.process.pid}"  # another machine on that bus has an r0 too
    assert "nats-server" not in group.pids()
    assert set(group.pids("scheduler")) == {f"r0{own}"}
    assert set(group.pids("model_worker")) == {f"worker-r0{own}-0", f"worker-r0{own}-1"}


def test_two_ranks_give_the_same_tokens_and_come_back_together(group: ServeProcess, one_rank: str) -> None:
    assert complete(group, max_tokens=24) == one_rank
    (zero, pid), (one, _) = sorted(group.pids("model_worker").items())
    group.wait_restarted(one, group.kill(one))
    group.wait_restarted(zero, pid)
    wait_for(serves_again(group), 120, "an answer after a rank was killed")
    assert complete(group, max_tokens=24) == one_rank


def test_nobody_is_left_on_the_bus_and_the_bus_is(group: ServeProcess, nats_url: str) -> None:
    """Last of those that use `group`, for it ends it."""
    ends_in_time(group)
    flags = ["--nats-url", nats_url, "--namespace", BUS_NAMESPACE, "--timeout", "1"]
    assert main(["ps", *flags]) == 1
