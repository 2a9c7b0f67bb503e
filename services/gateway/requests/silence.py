"""Why a request that has been silent for long will hear nothing more."""

from radixmesh.services.gateway.requests.ports import Limits, Load, Mesh
from radixmesh.services.gateway.requests.request import Request
from radixmesh.shared.messages import Finish

_SETTLE = 4.0
"""Seconds of silence before a running request is looked into."""


def why_lost(request: Request, mesh: Mesh, limits: Limits, now: float) -> str:
    """The reason to send a running request round again; empty if there is none.

    Silence proves nothing while it may be queued.
    """
    quiet = now - request.heard_at
    if quiet < _SETTLE or request.routed is None:
        return ""
    load = mesh.load(request.routed.replica_id, quiet)
    if load is not None and not load.running and not load.waiting:
        return "forgotten"
    gone = [name for name, epoch in request.dependencies if not mesh.alive(name, epoch)]
    if gone and quiet >= limits.route_timeout:
        return "lost"
    if quiet < limits.stall_timeout or _may_be_queued(request, load):
        return ""
    return "stalled"


def _may_be_queued(request: Request, load: Load | None) -> bool:
    """Whether a choice may be among those that wait: for its first slot, or, with tokens, for another one."""
    if load is None:
        return not request.output_tokens
    having = {bool(choice.tokens) for choice in request.choices if choice.finish is Finish.RUNNING}
    return (True in having and load.begun > 0) or (False in having and load.waiting > load.begun)
