"""What presence says, read the way the gateway and its clients want to know it."""

from collections.abc import Callable
from typing import Any

from radixmesh.services.gateway.requests.ports import Load
from radixmesh.shared.messages import Presence, State
from radixmesh.shared.presence.view import PresenceView

NEEDED = ("tokenizer", "scheduler", "detokenizer")
"""Services of which each model needs a ready one."""

BUS_AWAY = "the bus is out of reach"


class MeshView:
    """Answers questions about models and members. Its answers hold until `changed` is called.

    Args:
        reachable: whether the bus is there now.
        strict_names: a model goes by its own name only, even where there is no other.
    """

    def __init__(self, members: PresenceView, reachable: Callable[[], bool], strict_names: bool = False) -> None:
        self.reachable = reachable
        self._members = members
        self._strict_names = strict_names
        self._missing: dict[str, str] = {}

    def changed(self) -> None:
        """Presence is not what it was."""
        self._missing.clear()

    def models(self) -> list[str]:
        """Names of all models that someone in the mesh serves or is about to, sorted."""
        return sorted({member.model for member in self._members if member.model and member.service in NEEDED})

    def named(self, model: str) -> str:
        """The model that a client means: where a single one is served, that one goes by any name, and by none (empty).

        `model` itself where that does not help.
        """
        if model and self._strict_names:
            return model
        models = self.models()
        return models[0] if len(models) == 1 else model

    def missing(self, model: str) -> str:
        """What keeps `model` from being served, for people; empty if nothing does."""
        if not self.reachable():
            return BUS_AWAY
        known = self._missing.get(model)
        if known is None:
            known = "; ".join(filter(None, (self._lacks(service, model) for service in NEEDED)))
            if len(self._missing) < 256:  # names come from clients
                self._missing[model] = known
        return known

    def unknown(self, model: str) -> bool:
        """True if the mesh serves models, and `model` is none of them."""
        models = self.models()
        return bool(models) and model not in models

    def alive(self, instance: str, epoch: int) -> bool:
        return self._members.alive(instance, epoch)

    def load(self, replica_id: str, quiet: float) -> Load | None:
        """What the replica told of itself within the last `quiet` seconds."""
        member = self._members.get(replica_id)
        if member is None or quiet < 3 * member.interval:
            return None
        told = [member.attributes.get(name) for name in ("running", "waiting", "waiting_begun")]
        counts = [value for value in told if isinstance(value, int)]
        return Load(*counts) if len(counts) == len(told) else None

    def attribute(self, model: str, name: str) -> int:
        """The largest value that a tokenizer or scheduler of `model` tells for `name`; 0 if none does."""
        values = [m.attributes.get(name) for m in self._members if m.model == model and m.service in NEEDED]
        return max((value for value in values if isinstance(value, int)), default=0)

    def sampling_defaults(self, model: str) -> dict[str, float | int]:
        """What the model's ``generation_config.json`` recommends, as a tokenizer tells it."""
        for member in self._members.ready("tokenizer", model):
            if isinstance(told := member.attributes.get("sampling"), dict):
                return told
        return {}

    def created(self, model: str) -> int:
        """Unix time at which the first of those who serve `model` started."""
        epochs = [member.epoch for member in self._members if member.model == model]
        return min(epochs, default=0) // 1_000_000

    def ready_replicas(self, model: str) -> int:
        return len(self._members.ready("scheduler", model))

    def not_ready(self) -> dict[str, str]:
        """By model, what is missing; empty if at least one model is served. Key "" if there are no models."""
        if not self.reachable():
            return {"": BUS_AWAY}
        models = self.models()
        if not models:
            return {"": "no tokenizer, scheduler or detokenizer has been heard of"}
        missing = {model: self.missing(model) for model in models}
        return {} if not all(missing.values()) else missing

    def replicas(self) -> list[Presence]:
        return [member for member in self._members if member.service == "scheduler"]

    def counts(self) -> dict[tuple[str, str], int]:
        """Members by (service, state)."""
        found: dict[tuple[str, str], int] = {}
        for member in self._members:
            key = (member.service, member.state.value)
            found[key] = found.get(key, 0) + 1
        return found

    def describe(self) -> list[dict[str, Any]]:
        """All members as plain values, by service and name."""
        members = sorted(self._members, key=lambda member: (member.service, member.instance))
        return [member.model_dump(mode="json", exclude={"interval"}) for member in members]

    def _lacks(self, service: str, model: str) -> str:
        if self._members.ready(service, model):
            return ""
        there = [member for member in self._members if member.service == service and member.model in (model, "")]
        detail = next((member.detail for member in there if member.detail and member.state is State.STARTING), "")
        return f"no {service} is ready" + (f" ({detail})" if detail else "")
