"""GET /v1/models."""

from typing import Any

from aiohttp import web

from radixmesh.services.gateway.errors import unknown_model
from radixmesh.services.gateway.requests.mesh import MeshView


class Models:
    """What the mesh serves, as presence tells it."""

    def __init__(self, mesh: MeshView) -> None:
        self._mesh = mesh

    async def all(self, _request: web.Request) -> web.Response:
        """The list of all models."""
        return web.json_response({"object": "list", "data": [self._describe(name) for name in self._mesh.models()]})

    async def one(self, request: web.Request) -> web.Response:
        """The model whose name the path ends in."""
        name = request.match_info["id"]
        if name not in self._mesh.models():
            raise unknown_model(name)
        return web.json_response(self._describe(name))

    def _describe(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._mesh.created(name),
            "owned_by": "radixmesh",
            "root": name,
            "parent": None,
            "max_model_len": self._mesh.attribute(name, "max_model_len") or None,
            "vocab_size": self._mesh.attribute(name, "vocab_size") or None,
        }
