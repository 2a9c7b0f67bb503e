"""`docker compose up`, without Docker: every service by its own command and environment, up to a completion."""

import json
import re
import urllib.request
from collections.abc import Iterator
from functools import partial

import openai
import pytest

from radixmesh.shared.model_files.model_source import bundled_model
from tests.compose.compose_file import ROOT, load
from tests.compose.containers import Containers
from tests.serving import wait_for

SERVICES = ("gateway", "tokenizer", "scheduler", "model-worker", "detokenizer")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    model = bundled_model()
    variables = {
        "RADIXMESH_MODEL_DIR": str(model.parent),
        "RADIXMESH_MODEL": f"/models/{model.name}",
        "RADIXMESH_SERVED_MODEL_NAME": "tiny",
        "RADIXMESH_DTYPE": "float32",
        "RADIXMESH_THREADS": "1",
    }
    services = load("compose.yaml", variables)["services"]
    # Twice the KV cache that 128 sequences of full length need would be gigabytes, even for this model.
    services["model-worker"]["environment"] |= {"RADIXMESH_NUM_PAGES": "512", "RADIXMESH_MAX_SLOTS": "8"}
    containers = Containers(services, tmp_path_factory.mktemp("containers"))
    try:
        containers.start("nats")
        wait_for(lambda: containers.healthy("nats"), 60, "NATS to be healthy")
        for name in SERVICES:
            containers.start(name)
        for name in SERVICES:
            wait_for(
                partial(containers.healthy, name),
                120,
                f"{name} to be healthy",
                alive=containers.processes[name],
            )
        yield containers
    finally:
        ended = containers.stop()
        print(containers.logs())
    assert {name: ended[name] for name in SERVICES} == dict.fromkeys(SERVICES, 0)


def test_a_completion_comes_through_the_gateway(mesh: Containers) -> None:
    url = f"http://127.0.0.1:{mesh.port['8000']}/v1"
    with openai.OpenAI(base_url=url, api_key="none", timeout=60) as client:
        answer = client.completions.create(model="tiny", prompt="Once", max_tokens=8, extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_the_health_check_of_a_service_that_is_not_there_fails(mesh: Containers) -> None:
    mesh.processes["tokenizer"].terminate()
    mesh.processes["tokenizer"].wait(30)
    assert not mesh.healthy("tokenizer")
    mesh.start("tokenizer")
    wait_for(lambda: mesh.healthy("tokenizer"), 120, "the tokenizer to be healthy again")


def test_the_dashboard_uses_only_metrics_that_the_gateway_exports(mesh: Containers) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{mesh.port['8000']}/metrics", timeout=30) as answer:
        exported = set(re.findall(r"^# TYPE (\w+) ", answer.read().decode(), re.MULTILINE))
    board = json.loads((ROOT / "deploy/grafana/dashboards/radixmesh.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [variable["query"]["query"] for variable in board["templating"]["list"]]
    used = {name for query in queries for name in re.findall(r"\bradixmesh_\w+", query)}
    assert len(used) >= 15
    assert {re.sub(r"_bucket$", "", name) for name in used} <= exported
