"""Which processes a mesh consists of."""

import argparse
import socket

import pytest

from radixmesh.cli.serve import command
from radixmesh.cli.serve.host import interpreter, machine
from radixmesh.cli.serve.host.machine import Machine
from radixmesh.cli.serve.planning.options import Options, add_arguments, from_args
from radixmesh.cli.serve.planning.plan import ProcessSpec, ServedModel, UnitSpec, gateway_ports, plan, worker_threads
from radixmesh.services.detokenizer.config import DetokenizerSettings
from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.tokenizer.config import TokenizerSettings
from radixmesh.shared.errors import ConfigError
from tests.support import free_port

MODEL = ServedModel("/models/llama", "llama")
MACHINE = Machine(cores=2, accelerators=0, free_gib=16.0)


def options(*flags: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_args(parser.parse_args(flags))


def planned(*flags: str, on: Machine = MACHINE, suffix: str = "") -> dict[str, UnitSpec]:
    chosen = options(*flags)
    return {unit.name: unit for unit in plan(chosen, MODEL, on, gateway_ports(chosen), suffix)}


def flag(spec: ProcessSpec, name: str) -> str:
    """The last value of a flag: the one that counts."""
    return [word.partition("=")[2] for word in spec.argv if word.startswith(f"{name}=")][-1]


def test_one_of_each_by_default() -> None:
    units = planned()
    assert list(units) == ["gateway-0", "tokenizer-0", "detokenizer-0", "scheduler-r0", "worker-r0"]
    assert all(len(unit.processes) == 1 for unit in units.values())


def test_every_instance_has_a_name_of_its_own() -> None:
    units = planned("--replicas", "2", "--tp", "2", "--tokenizers", "2", "--detokenizers", "3", "--gateways", "2")
    instances = [spec.instance for unit in units.values() for spec in unit.processes]
    assert len(instances) == len(set(instances)) == 2 + 2 + 3 + 2 + 4


def test_a_replica_pins_its_scheduler_and_its_workers_together() -> None:
    units = planned("--replicas", "2")
    for name in ("r0", "r1"):
        (scheduler,), (worker,) = units[f"scheduler-{name}"].processes, units[f"worker-{name}"].processes
        assert flag(scheduler, "--replica") == flag(worker, "--replica") == scheduler.instance == name
        assert flag(worker, "--group") == f"g-{name}"


def test_the_ranks_of_a_group_are_one_unit_and_meet_at_a_new_port_each_start() -> None:
    unit = planned("--tp", "2")["worker-r0"]
    for port in (1234, 5678):
        ranks = unit.commands(port)
        assert [flag(spec, "--rank") for spec in ranks] == ["0", "1"]
        assert {flag(spec, "--tp") for spec in ranks} == {"2"}
        assert {flag(spec, "--dist-init") for spec in ranks} == {f"tcp://127.0.0.1:{port}"}


def test_gateways_listen_on_consecutive_ports() -> None:
    units = planned("--gateways", "3", "--port", "9000", "--grpc-port", "9100")
    for i in range(3):
        (spec,) = units[f"gateway-{i}"].processes
        assert (flag(spec, "--http-port"), flag(spec, "--grpc-port")) == (str(9000 + i), str(9100 + i))


def test_grpc_can_be_off() -> None:
    assert gateway_ports(options("--gateways", "2", "--grpc-port", "-1")) == [(8000, -1), (8001, -1)]


def test_port_ranges_must_not_meet() -> None:
    with pytest.raises(ConfigError, match="--port 8000 and --grpc-port 8001 meet with 2 gateways"):
        gateway_ports(options("--gateways", "2", "--grpc-port", "8001"))


@pytest.mark.parametrize(
    ("flags", "cores", "threads"),
    [
        ((), 2, 2),
        ((), 16, 16),
        (("--replicas", "2"), 2, 1),
        (("--replicas", "2", "--tp", "2"), 16, 4),
        (("--replicas", "4"), 2, 1),
        (("--threads", "3"), 2, 3),
    ],
)
def test_workers_share_the_cores(flags: tuple[str, ...], cores: int, threads: int) -> None:
    machine = Machine(cores, 0, 16.0)
    assert worker_threads(options(*flags), machine) == threads
    worker = planned(*flags, on=machine)["worker-r0"].processes[0]
    assert flag(worker, "--threads") == worker.environ["OMP_NUM_THREADS"] == str(threads)


def test_the_others_leave_the_cores_to_the_workers() -> None:
    for name, unit in planned().items():
        if not name.startswith("worker"):
            assert unit.processes[0].environ["OMP_NUM_THREADS"] == "1"
            assert unit.processes[0].environ["TOKENIZERS_PARALLELISM"] == "false"


def test_groups_take_accelerators_of_their_own_where_there_are_enough() -> None:
    units = planned("--replicas", "2", "--tp", "2", on=Machine(16, 4, 64.0))
    assert flag(units["worker-r0"].processes[1], "--device-index") == "0"  # the worker adds its rank
    assert flag(units["worker-r1"].processes[0], "--device-index") == "2"


def test_several_workers_on_a_cpu_share_its_memory() -> None:
    worker = planned("--replicas", "2")["worker-r1"].processes[0]
    assert flag(worker, "--kv-memory") == "4.000"
    assert not any("--kv-memory" in word for word in planned()["worker-r0"].processes[0].argv)


@pytest.mark.parametrize("told", [("--kv-memory", "1.5"), ("--set", "model_worker.num-pages=100")])
def test_memory_that_was_told_is_left_alone(told: tuple[str, str]) -> None:
    argv = planned("--replicas", "2", *told)["worker-r0"].processes[0].argv
    assert "--kv-memory=4.000" not in argv


def test_flags_for_workers_reach_them_alone() -> None:
    units = planned("--dtype", "float32", "--max-model-len", "64", "--page-size", "8", "--max-slots", "4")
    worker = units["worker-r0"].processes[0]
    got = [flag(worker, name) for name in ("--dtype", "--max-model-len", "--page-size", "--max-slots")]
    assert got == ["float32", "64", "8", "4"]
    assert not any("--dtype" in word for word in units["tokenizer-0"].processes[0].argv)


def test_set_passes_any_flag_to_one_service() -> None:
    units = planned("--set", "scheduler.max_queued=7", "--set", "model-worker.verbose=true", "--set", "gateway.x=FALSE")
    assert flag(units["scheduler-r0"].processes[0], "--max-queued") == "7"
    assert units["worker-r0"].processes[0].argv[-1] == "--verbose=true"
    assert units["gateway-0"].processes[0].argv[-1] == "--x=FALSE"
    assert not any("--max-queued" in word for word in units["gateway-0"].processes[0].argv)


def test_the_reasoning_parser_is_the_tokenizers() -> None:
    units = planned("--reasoning-parser", "qwen3")
    assert flag(units["tokenizer-0"].processes[0], "--reasoning-parser") == "qwen3"
    silent = units["detokenizer-0"].processes[0], planned()["tokenizer-0"].processes[0]
    assert not any(word.startswith("--reasoning-parser") for spec in silent for word in spec.argv)


def test_the_api_key_is_on_no_command_line() -> None:
    units = planned("--api-key", "hush")
    assert units["gateway-0"].processes[0].environ["RADIXMESH_API_KEY"] == "hush"
    assert all("hush" not in " ".join(spec.argv) for unit in units.values() for spec in unit.processes)
    assert "RADIXMESH_API_KEY" not in units["tokenizer-0"].processes[0].environ


@pytest.mark.parametrize("name", ["-x", "--model", "None", "null", "true", "[a]", "a b", "a=b", "ünï", "org/a", "'"])
def test_a_name_is_one_word_with_its_flag_and_read_as_it_is(name: str) -> None:
    chosen = options(f"--served-model-name={name}")
    model = ServedModel("/models/llama", chosen.served_model_name or "")
    for unit in plan(chosen, model, MACHINE, gateway_ports(chosen)):
        if unit.service in ("tokenizer", "detokenizer"):
            settings = {"tokenizer": TokenizerSettings, "detokenizer": DetokenizerSettings}[unit.service]
            loaded = settings.load(interpreter.arguments(unit.processes[0].argv))
            assert (loaded.model_name, loaded.model) == (name, "/models/llama")


def test_empty_words_are_none() -> None:
    chosen = options("--served-model-name", "", "--api-key", "", "--nats-url", "", "--model", "", "--host", "")
    assert (chosen.served_model_name, chosen.api_key, chosen.nats_url, chosen.model) == (None, None, None, None)
    assert chosen.host == "127.0.0.1"


def test_a_key_from_a_file_counts_without_its_last_newline() -> None:
    assert options("--api-key", " hush\r\n").api_key == "hush"


def test_a_suffix_keeps_the_names_of_several_machines_apart() -> None:
    here, there = planned(suffix="-a"), planned(suffix="-b")
    names = [{spec.instance for unit in units.values() for spec in unit.processes} for units in (here, there)]
    assert names[0].isdisjoint(names[1])
    assert flag(here["worker-r0-a"].processes[0], "--replica") == "r0-a"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--replicas", "0"), "--replicas 0: must be 1 to 256"),
        (("--tp", "1000"), "--tp 1000"),
        (("--port", "70000"), "--port 70000"),
        (("--max-model-len", "-4"), "--max-model-len -4"),
        (("--set", "scheduler.policy"), "SERVICE.FLAG=VALUE"),
        (("--set", "cook.policy=x"), "no service 'cook'"),
        (("--set", "gateway.http-port=1"), "gateway.http-port=1: say --port"),
        (("--set", "gateway.grpc_port=1"), "gateway.grpc_port=1: say --grpc-port"),
        (("--set", "scheduler.namespace=mine"), "scheduler.namespace=mine: say --namespace"),
        (("--set", "tokenizer.nats-url=nats://x"), "say --nats-url"),
        (("--set", "detokenizer.served-model-name=y"), "say --served-model-name"),
        (("--set", "model_worker.tp=2"), "say --tp"),
        (("--set", "model_worker.rank=1"), "serve itself decides"),
        (("--set", "scheduler.instance=s"), "serve itself decides"),
        (("--kv-memory", "-1"), "--kv-memory -1"),
        (("--kv-memory", "nan"), "--kv-memory nan"),
        (("--served-model-name", "x" * 257), "--served-model-name has 257 characters, more than the 256"),
        (("--served-model-name", "a\tb"), "--served-model-name has characters that cannot be printed"),
        (("--served-model-name", "a\udcff"), "--served-model-name has characters that cannot be printed"),
        (("--served-model-name", " a"), "--served-model-name begins or ends with a space"),
        (("--served-model-name", "a/../b"), "--served-model-name has a part"),
        (("--api-key", "a\nb"), "--api-key has characters that no header can carry"),
        (("--api-key", "schlüssel"), "--api-key has characters that no header can carry"),
        (("--api-key", "\n"), "--api-key is nothing but white space"),
        (("--api-key", "x" * 5000), "--api-key has 5000 characters"),
    ],
)
def test_wrong_flags_are_named(flags: tuple[str, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        options(*flags)


def test_a_free_port_with_a_taken_neighbour_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        neighbour = taken.getsockname()[1] - 1
        first = iter([neighbour, neighbour])
        monkeypatch.setattr(machine, "free_port", lambda host: next(first, None) or free_port())
        chosen = command._with_ports(options("--port", "0", "--grpc-port", "0", "--gateways", "2"))
        assert chosen.port != neighbour
        assert chosen.grpc_port not in (neighbour, 0)
        with pytest.raises(ConfigError, match="--grpc-port"):
            command._with_ports(options("--port", "0", "--grpc-port", str(neighbour), "--gateways", "2"))


def test_what_gateways_are_told_of_names_and_pages() -> None:
    (plain,) = planned()["gateway-0"].processes
    assert not any(word.startswith(("--strict-model-names", "--cors-origins")) for word in plain.argv)
    (told,) = planned("--strict-model-names", "--cors-origins", "")["gateway-0"].processes
    assert flag(told, "--cors-origins") == ""
    settings = GatewaySettings.load([word for word in told.argv if word.startswith("--")])
    assert (settings.strict_model_names, settings.cors_origins) == (True, set())
