"""What the terminal shows until the mesh serves: a bar, or now and then a line."""

from radixmesh.cli.serve.display.terminal import Terminal
from radixmesh.shared.messages import Presence, State
from radixmesh.shared.presence.view import PresenceView

STEP = 0.25
"""Share of the loading after which a line is due where there is no bar."""


class Progress:
    """Follows the workers' presence."""

    def __init__(self, terminal: Terminal, members: PresenceView, workers: list[str]) -> None:
        """`workers`: the instances that load the model."""
        self._terminal = terminal
        self._members = members
        self._workers = workers
        self._told: tuple[int, str] | None = None
        members.on_change.append(self._changed)
        terminal.bar(0.0, "starting")

    def close(self) -> None:
        self._members.on_change.remove(self._changed)
        self._terminal.no_bar()

    def _changed(self, _before: Presence | None, _now: Presence | None) -> None:
        known = [self._members.get(instance) for instance in self._workers]
        fractions = [loaded(member) for member in known]
        slowest = known[fractions.index(min(fractions))]
        fraction, text = sum(fractions) / len(fractions), what(slowest)
        self._terminal.bar(fraction, text)
        told = (int(fraction / STEP), text)
        if not self._terminal.interactive and slowest is not None and told != self._told:
            self._told = told
            self._terminal.say(f"{slowest.instance}: {text} ({fraction:.0%})")


def loaded(member: Presence | None) -> float:
    """0 to 1: how much of its model a worker has loaded."""
    if member is None:
        return 0.0
    if member.state is State.READY:
        return 1.0
    progress = member.attributes.get("progress", 0.0)
    if not isinstance(progress, int | float) or not 0 <= progress <= 1:
        return 0.0
    return float(progress)


def what(member: Presence | None) -> str:
    """What a worker does, in a few words."""
    if member is None:
        return "starting the worker"
    if member.state is State.READY:
        return "model is loaded"
    return str(member.attributes.get("loading") or member.detail or "loading the model")
