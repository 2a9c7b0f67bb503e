"""What compose.yaml, its companions, the Dockerfile and deploy/ promise, read off the files."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from radixmesh import __version__
from tests.compose.compose_file import ROOT, interpolate, load, read_env

FILES = ("compose.yaml", "compose.gpu.yaml", "compose.observability.yaml")
OURS = ("gateway", "tokenizer", "scheduler", "model-worker", "detokenizer")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = load("compose.yaml")["services"]
    return found


def targets() -> dict[str, str]:
    """The stages of the Dockerfile, each with the one it starts from."""
    text = (ROOT / "Dockerfile").read_text()
    return {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)}


def instructions(stage: str) -> str:
    """A stage's own lines, and those of the stages it starts from."""
    text = (ROOT / "Dockerfile").read_text()
    stages = {part.split("\n")[0].split(" AS ")[1]: part for part in re.split(r"^FROM ", text, flags=re.M)[1:]}
    base = targets().get(stage)
    return "" if base is None else instructions(base) + stages[stage]


def test_there_are_nats_and_the_five_services(services: dict[str, Any]) -> None:
    assert set(services) == {"nats", *OURS}


def test_every_service_has_a_health_check_and_is_started_again(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped"
        assert service["stop_grace_period"] == "10s"
    for name in OURS:
        assert services[name]["healthcheck"]["test"] == ["CMD", "radixmesh", "health", name]
        assert services[name]["depends_on"] == {"nats": {"condition": "service_healthy"}}


def test_every_service_can_be_scaled(services: dict[str, Any]) -> None:
    for name in OURS:
        assert "container_name" not in services[name]
        assert "RADIXMESH_INSTANCE" not in services[name]["environment"]
        assert not any(word.startswith(("--instance", "--replica")) for word in services[name]["command"])
        for port in services[name].get("ports", ()):
            first, last = port.split(":")[1].split("-")
            assert int(last) > int(first), f"{name} has a fixed port"


def test_commands_are_those_of_the_images(services: dict[str, Any]) -> None:
    for name in OURS:
        command = re.findall(r"^CMD (.*)$", instructions(services[name]["build"]["target"]), re.MULTILINE)
        assert json.loads(command[-1]) == services[name]["command"]


@pytest.mark.parametrize("name", FILES)
def test_targets_exist_and_images_are_pinned(name: str) -> None:
    for service, spec in load(name)["services"].items():
        if "build" in spec:
            assert spec["build"]["target"] in targets(), service
        if "image" in spec:
            assert re.search(r":v?\d+\.\d+\.\d+", spec["image"]), f"{service}: {spec['image']}"
            assert not spec["image"].endswith(":latest")


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_mounted_exist(name: str) -> None:
    for spec in load(name)["services"].values():
        for volume in spec.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./deploy"):
                assert (ROOT / source).exists(), source


@pytest.mark.parametrize("name", FILES[1:])
def test_companions_add_to_services_that_exist_or_bring_an_image(name: str, services: dict[str, Any]) -> None:
    for service, spec in load(name)["services"].items():
        assert service in services or "image" in spec


def test_every_variable_is_in_the_env_file() -> None:
    known = read_env()
    for name in FILES:
        for variable in re.findall(r"\$\{(\w+)", (ROOT / name).read_text()):
            assert variable in known, f"{name}: {variable}"


def test_the_version_stands_in_one_place_and_the_images_are_tagged_with_it() -> None:
    assert read_env()["RADIXMESH_TAG"] == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "radixmesh.__version__"}
    assert "COPY src/radixmesh/__init__.py" in instructions("skeleton")


def test_interpolation_is_composes() -> None:
    assert interpolate(["${A}-${B:-x}", 1, {"k": "${A:-y}"}], {"A": "a", "B": ""}) == ["a-x", 1, {"k": "a"}]
    with pytest.raises(KeyError):
        interpolate("${A}", {})


def test_only_those_who_compute_have_torch() -> None:
    for name in ("gateway", "tokenizer", "detokenizer", "scheduler"):
        extras = re.findall(r"\[(\w+)\]\"", instructions(name))
        assert not {"worker", "cuda", "all", "serve"} & set(extras), name
    assert "[worker]" in instructions("model-worker")
    assert "[cuda]" in instructions("model-worker-cuda")
    assert "[gateway]" in instructions("gateway")


def test_no_image_runs_as_root() -> None:
    for name in (*OURS, "model-worker-cuda"):
        assert re.findall(r"^USER (\S+)$", instructions(name), re.MULTILINE)[-1] == "radixmesh"


def test_the_gpu_worker_reserves_a_gpu() -> None:
    worker = load("compose.gpu.yaml")["services"]["model-worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]


def test_every_service_sends_its_spans_to_the_collector_and_that_to_jaeger() -> None:
    services = load("compose.observability.yaml")["services"]
    for name in OURS:
        assert services[name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector:4317"
    collector = yaml.safe_load((ROOT / "deploy/otel/collector.yaml").read_text())
    pipeline = collector["service"]["pipelines"]["traces"]
    assert collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(":4317")
    assert all(name in collector["exporters"] for name in pipeline["exporters"])
    assert collector["exporters"][pipeline["exporters"][0]]["endpoint"].split(":")[0] in services


def test_prometheus_scrapes_the_gateways_on_the_port_they_listen_on(services: dict[str, Any]) -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())["scrape_configs"]
    (where,) = job["dns_sd_configs"]
    assert where["names"] == ["gateway"]
    assert str(where["port"]) == services["gateway"]["environment"]["RADIXMESH_HTTP_PORT"]


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    ids = {source["uid"] for source in sources["datasources"]}
    board = json.loads((ROOT / "deploy/grafana/dashboards/radixmesh.json").read_text())
    panels = board["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} <= ids
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    mount = load("compose.observability.yaml")["services"]["grafana"]["volumes"][1].split(":")[1]
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/radixmesh.yaml").read_text())
    assert provider["providers"][0]["options"]["path"] == mount
