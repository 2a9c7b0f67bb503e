"""`radixmesh serve` as people use it: real processes, the tiny model, the `openai` client."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import psutil
import pytest
from safetensors.numpy import load_file, save_file
from serving import ServeProcess, all_gone, wait_for

from radixmesh.cli import main
from radixmesh.cli.serve import tiny_model

PROMISED_END = 5.0
"""Seconds from SIGTERM to the exit of `radixmesh serve`."""

SMALL = ("--dtype", "float32", "--max-model-len", "512", "--max-slots", "8", "--threads", "1")


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


@pytest.fixture(scope="module")
def mesh() -> Iterator[ServeProcess]:
    with ServeProcess(*SMALL) as mesh:
        yield mesh


def test_completes_text(mesh: ServeProcess) -> None:
    assert complete(mesh) == complete(mesh)


def test_streams_chat(mesh: ServeProcess) -> None:
    with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", timeout=60) as client:
        stream = client.chat.completions.create(
            model=mesh.model, messages=[{"role": "user", "content": "Hello!"}], max_tokens=8, stream=True
        )
        chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")


def test_the_banner_has_a_curl_line_that_works(mesh: ServeProcess) -> None:
    wait_for(lambda: "Try:" in mesh.output, 60, "the banner")
    assert "random, so its output is noise" in mesh.output
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


@pytest.mark.parametrize("instance", ["tokenizer-0", "detokenizer-0", "gateway-0", "r0", "worker-r0-0", "nats-server"])
def test_whoever_is_killed_comes_back_and_the_mesh_serves_again(mesh: ServeProcess, instance: str) -> None:
    before = complete(mesh)
    others = {name: pid for name, pid in mesh.pids().items() if name != instance}
    mesh.wait_restarted(instance, mesh.kill(instance))
    wait_for(serves_again(mesh), 120, f"an answer after {instance} was killed")
    assert complete(mesh) == before
    assert {name: pid for name, pid in mesh.pids().items() if name != instance} == others
    assert "was killed by SIGKILL" in mesh.output


def test_sigterm_ends_everything_in_time_even_with_a_request_running() -> None:
    with ServeProcess(*SMALL, "--tokenizers", "2", "--detokenizers", "2", "--gateways", "2") as mesh:
        assert len(mesh.state["urls"]) == 2
        pids = list(mesh.pids().values())
        assert len(pids) == 9  # the NATS server too
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


def run_serve(*flags: str, tmp_path: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "radixmesh.cli", "serve", "--log-dir", str(tmp_path / "logs"), *flags],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("flag", ["--port", "--grpc-port"])
def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = "--grpc-port" if flag == "--port" else "--port"
        status, said = run_serve(flag, str(port), other, "0", tmp_path=tmp_path)
    assert status == 2
    assert f"port {port} on 127.0.0.1 cannot be used" in said
    assert f"by {flag}" in said
    assert not list(tmp_path.glob("logs/*-0.log"))


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ports = ("--port", "0", "--grpc-port", "0")
    status, said = run_serve("--model", str(tmp_path / "empty"), *ports, tmp_path=tmp_path)
    assert status == 1
    assert "has no config.json" in said


def test_a_model_with_a_missing_weight_ends_the_serve_with_its_name(tmp_path: Path) -> None:
    model = tiny_model.ensure(tmp_path)
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors")
    ports = ("--port", "0", "--grpc-port", "0")
    status, said = run_serve("--model", str(model), *ports, tmp_path=tmp_path)
    assert status == 1
    assert "model.layers.1.mlp.up_proj.weight" in said
    assert "worker-r0-0 exited with" in said.split("radixmesh serve:")[1]


def test_two_ranks_give_the_same_tokens_and_come_back_together(mesh: ServeProcess) -> None:
    expected = complete(mesh, max_tokens=24)
    with ServeProcess(*SMALL, "--tp", "2") as group:
        assert complete(group, max_tokens=24) == expected
        before = group.pids("model_worker")
        group.wait_restarted("worker-r0-1", group.kill("worker-r0-1"))
        group.wait_restarted("worker-r0-0", before["worker-r0-0"])
        wait_for(serves_again(group), 120, "an answer after a rank was killed")
        assert complete(group, max_tokens=24) == expected


def test_two_replicas_on_a_bus_that_was_there_before(nats_url: str, namespace: str) -> None:
    bus = ("--nats-url", nats_url, "--namespace", namespace)
    with ServeProcess(*SMALL, *bus, "--replicas", "2") as mesh:
        assert "nats-server" not in mesh.pids()
        own = f"-{socket.gethostname()}-{mesh.process.pid}"  # another machine on that bus has an r0 too
        assert {f"r0{own}", f"r1{own}"} == set(mesh.pids("scheduler"))
        assert {f"worker-r0{own}-0", f"worker-r1{own}-0"} == set(mesh.pids("model_worker"))
        expected = complete(mesh)
        mesh.kill(f"r0{own}", signal.SIGSTOP)  # asleep: presence notices by its missing heartbeats
        wait_for(serves_again(mesh), 120, "an answer from the other replica")
        mesh.kill(f"r0{own}", signal.SIGCONT)
        assert complete(mesh) == expected
    assert main(["ps", *bus, "--timeout", "1"]) == 1  # nobody is left on the bus, and the bus is
