"""Prometheus metrics: what this gateway did, and how the mesh is, as presence tells it."""

from collections.abc import Callable, Iterator
from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from radixmesh.services.gateway.requests.mesh import MeshView

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each one, which nobody reads

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FIRST_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_NEXT_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
_WHOLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)

_REPLICA_GAUGES = (
    "running",
    "waiting",
    "num_pages",
    "free_pages",
    "cached_pages",
    "max_slots",
    "max_queued",
)


class ModelMetrics:
    """The series of one model, looked up once."""

    def __init__(self, owner: "Metrics", model: str) -> None:
        self.first_token = owner.first_token.labels(model)
        self.next_token = owner.next_token.labels(model)
        self.whole = owner.whole.labels(model)
        self.prompt_tokens = owner.prompt_tokens.labels(model)
        self.output_tokens = owner.output_tokens.labels(model)
        self.cached_tokens = owner.cached_tokens.labels(model)


class Metrics:
    """One registry per gateway, so that several can live in one process."""

    def __init__(self, mesh: MeshView, inflight: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        prefix = "radixmesh_gateway_"
        self.requests = Counter(
            f"{prefix}requests", "Client requests by endpoint and status.", ("endpoint", "status"), registry=registry
        )
        self.failures = Counter(f"{prefix}failures", "Prompts that ended in an error.", ("code",), registry=registry)
        self.redispatches = Counter(
            f"{prefix}redispatches", "Prompts sent round the ring again.", ("reason",), registry=registry
        )
        self.first_token = Histogram(
            f"{prefix}time_to_first_token_seconds",
            "From a prompt's arrival to its first token.",
            ("model",),
            buckets=_FIRST_TOKEN,
            registry=registry,
        )
        self.next_token = Histogram(
            f"{prefix}inter_token_seconds",
            "Between two arrivals of tokens of one choice.",
            ("model",),
            buckets=_NEXT_TOKEN,
            registry=registry,
        )
        self.whole = Histogram(
            f"{prefix}request_seconds",
            "From a prompt's arrival to the end of its last choice.",
            ("model",),
            buckets=_WHOLE,
            registry=registry,
        )
        self.prompt_tokens = Counter(f"{prefix}prompt_tokens", "Prompt tokens.", ("model",), registry=registry)
        self.output_tokens = Counter(f"{prefix}output_tokens", "Output tokens.", ("model",), registry=registry)
        self.cached_tokens = Counter(
            f"{prefix}cached_tokens", "Prompt tokens out of the prefix cache.", ("model",), registry=registry
        )
        Gauge(f"{prefix}inflight", "Prompts in work.", registry=registry).set_function(inflight)
        registry.register(_MeshCollector(mesh))
        self.model = lru_cache(256)(lambda name: ModelMetrics(self, name))

    def text(self) -> bytes:
        """All series in Prometheus's text format."""
        return generate_latest(self._registry)


class _MeshCollector(Collector):
    """Reads presence anew at each scrape, so that what left the mesh leaves the metrics."""

    def __init__(self, mesh: MeshView) -> None:
        self._mesh = mesh

    def collect(self) -> Iterator[GaugeMetricFamily]:
        members = GaugeMetricFamily("radixmesh_members", "Services by state.", labels=("service", "state"))
        for (service, state), count in sorted(self._mesh.counts().items()):
            members.add_metric((service, state), count)
        yield members
        replicas = self._mesh.replicas()
        for name in _REPLICA_GAUGES:
            family = GaugeMetricFamily(
                f"radixmesh_replica_{name}", f"Presence attribute {name} of each replica.", labels=("replica", "model")
            )
            for member in replicas:
                value = member.attributes.get(name)
                if isinstance(value, (int, float)):
                    family.add_metric((member.instance, member.model), value)
            yield family
