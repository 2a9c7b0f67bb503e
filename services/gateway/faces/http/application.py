"""The application that all HTTP faces share: who may call, what is counted, and how errors end."""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from aiohttp import web

from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.gateway.errors import invalid, retry_after
from radixmesh.services.gateway.faces.http.connection import Connection
from radixmesh.services.gateway.faces.http.cors import Cors
from radixmesh.services.gateway.faces.http.endpoint import Endpoint, Handler
from radixmesh.services.gateway.faces.http.errors import ErrorForm, error_object, status_of
from radixmesh.services.gateway.faces.keys import key_matches
from radixmesh.services.gateway.requests.metrics import Metrics
from radixmesh.shared import telemetry
from radixmesh.shared.errors import ErrorCode, RequestError

log = logging.getLogger(__name__)

_MAX_REQUEST_ID = 256
"""Characters of a client's own X-Request-Id, which it gets back."""

_CLIENT_GONE = 499
"""The status that is counted for a client which does not wait for its answer."""


def application(endpoints: Sequence[Endpoint], metrics: Metrics, settings: GatewaySettings) -> web.Application:
    """All faces' endpoints, and at / a list of them."""
    around = _Around(endpoints, metrics, settings)
    app = web.Application(client_max_size=settings.max_body_bytes, middlewares=[around.serve])
    app.on_response_prepare.append(around.mark)
    app.router.add_get("/", around.hint)
    app.add_routes([web.route(endpoint.method, endpoint.path, endpoint.handler) for endpoint in endpoints])
    return app


class _Around:
    """What happens around every request."""

    def __init__(self, endpoints: Sequence[Endpoint], metrics: Metrics, settings: GatewaySettings) -> None:
        self._open = frozenset(endpoint.path for endpoint in endpoints if endpoint.open)
        self._error_forms = {endpoint.handler: endpoint.error_form for endpoint in endpoints}
        self._metrics = metrics
        self._key = settings.api_key.get_secret_value().encode() if settings.api_key else b""
        self._cors = Cors(settings.cors_origins)
        self._max_body = settings.max_body_bytes

    @web.middleware
    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Checks the key, counts the request, and gives every error its face's form."""
        connection = Connection.of(request)
        with (
            telemetry.current(telemetry.context_from(request.headers)),
            connection.serving(request) if connection is not None else nullcontext(),
        ):
            return await self._answered(request, handler)

    async def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Headers of every answer, just before they go out."""
        self._cors.mark(request, response)
        given = request.headers.get("X-Request-Id", "")
        if 0 < len(given) <= _MAX_REQUEST_ID and given.isascii() and given.isprintable():
            response.headers["X-Request-Id"] = given

    async def hint(self, request: web.Request) -> web.Response:
        """What there is."""
        routes = [f"{each.method} {each.resource.canonical}" for each in request.app.router.routes() if each.resource]
        served = sorted({route for route in routes if not route.startswith("HEAD")})
        return web.json_response({"name": "radixmesh gateway", "endpoints": served})

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        form = self._error_forms.get(request.match_info.handler, error_object)
        try:
            response = self._cors.preflight(request)
            if response is None:
                self._check_key(request)
                response = await handler(request)
        except RequestError as error:
            response = _error_response(error, form=form)
            log.info("%s %s: %d %s", request.method, request.path, response.status, error.code.value)
        except web.HTTPRequestEntityTooLarge:
            text = f"the body is over the limit of {self._max_body} bytes"
            response = _error_response(RequestError(ErrorCode.REQUEST_TOO_LARGE, text), form=form)
        except web.HTTPException as error:
            response = _protocol_error(request, error)
        except ConnectionError:
            response = web.Response(status=_CLIENT_GONE)  # nobody will read it
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            failure = RequestError(ErrorCode.INTERNAL, "the gateway failed on this request")
            response = _error_response(failure, form=form)
        finally:
            resource = request.match_info.route.resource
            endpoint = resource.canonical if resource is not None else "other"
            status = _CLIENT_GONE if response is None else response.status
            self._metrics.requests.labels(endpoint, str(status)).inc()
        return response

    def _check_key(self, request: web.Request) -> None:
        if not self._key or request.path in self._open:
            return
        if not key_matches(request.headers, self._key):
            raise RequestError(
                ErrorCode.UNAUTHENTICATED, "a valid API key is needed: send it as 'Authorization: Bearer KEY'"
            )


def _protocol_error(request: web.Request, error: web.HTTPException) -> web.Response:
    """What aiohttp itself refuses: no endpoint was found."""
    texts = {
        404: f"there is no {request.path[:200]}",
        405: f"{request.path[:200]} does not take {request.method[:20]}",
    }
    headers = {name: value for name, value in error.headers.items() if name in ("Allow", "Location")}
    return _error_response(invalid(texts.get(error.status, error.reason)), error.status, headers)


def _error_response(
    error: RequestError,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    form: ErrorForm = error_object,
) -> web.Response:
    """An error as the whole answer.

    Args:
        status: HTTP's, where it is not the error's own.
        form: how the face that was asked writes it.
    """
    if status is None:
        status = status_of(error)
    extra = {**(headers or {}), **retry_after(error)}
    if status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    body = json.dumps(form(error, status)).encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=extra)
