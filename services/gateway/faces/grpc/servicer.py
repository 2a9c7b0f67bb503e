"""The methods of `radixmesh.v1.RadixMesh`."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc

from radixmesh.services.gateway.errors import invalid, retry_after, unknown_model
from radixmesh.services.gateway.faces.grpc import radixmesh_pb2 as pb
from radixmesh.services.gateway.faces.grpc import radixmesh_pb2_grpc
from radixmesh.services.gateway.faces.grpc.statuses import STATUSES
from radixmesh.services.gateway.faces.keys import key_matches
from radixmesh.services.gateway.fields.chat import ChatMessage, template_messages
from radixmesh.services.gateway.fields.prompt import make_prompt
from radixmesh.services.gateway.fields.sampling import MAX_TOKEN_ID, Sampling
from radixmesh.services.gateway.fields.schema import validate
from radixmesh.services.gateway.requests.metrics import Metrics
from radixmesh.services.gateway.requests.prompt import Prompt
from radixmesh.services.gateway.requests.request import Delta, Request
from radixmesh.services.gateway.requests.submission import Submitter
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Finish
from radixmesh.shared.names import MODEL_NAME_CHARS

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

MALFORMED = object()
"""In place of a request whose bytes are not the message that its method takes."""

_REQUEST_ID = re.compile(r"[0-9a-f]{32}")
_FINISH = {
    Finish.RUNNING: pb.FINISH_REASON_UNSPECIFIED,
    Finish.STOP: pb.FINISH_REASON_STOP,
    Finish.LENGTH: pb.FINISH_REASON_LENGTH,
    Finish.CANCELLED: pb.FINISH_REASON_CANCELLED,
}


class Servicer(radixmesh_pb2_grpc.RadixMeshServicer):
    """Serves calls.

    Args:
        api_key: empty if clients need none.
    """

    def __init__(self, submitter: Submitter, metrics: Metrics, api_key: str) -> None:
        self._submitter = submitter
        self._metrics = metrics
        self._key = api_key.encode()

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:
        await self._call("Generate", request, context, lambda headers: self._generate(request, context, headers))

    async def Abort(self, request: pb.AbortRequest, context: Context) -> pb.AbortResponse:
        return await self._call("Abort", request, context, lambda _: self._abort(request))

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Context) -> pb.GetModelInfoResponse:
        return await self._call("GetModelInfo", request, context, lambda _: self._model_info(request))

    async def _call(
        self, name: str, request: object, context: Context, method: Callable[[dict[str, str]], Awaitable[T]]
    ) -> T:
        """Checks the key and the form, counts the call, and turns errors into statuses."""
        status = grpc.StatusCode.CANCELLED  # what is counted if the client goes
        failure: RequestError
        try:
            headers = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
            if self._key and not key_matches(headers, self._key):
                raise RequestError(ErrorCode.UNAUTHENTICATED, "a valid API key is needed as metadata 'authorization'")
            if request is MALFORMED:
                raise invalid(f"the request is not a message as {name} takes it")
            result = await method(headers)
            status = grpc.StatusCode.OK
            return result
        except RequestError as error:
            failure, status = error, STATUSES[error.code]
        except Exception:
            log.exception("%s failed", name)
            failure = RequestError(ErrorCode.INTERNAL, "the gateway failed on this request")
            status = STATUSES[failure.code]
        finally:
            self._metrics.requests.labels(f"grpc/{name}", status.name).inc()
        return await self._refuse(context, failure)

    async def _refuse(self, context: Context, failure: RequestError) -> NoReturn:
        await context.abort(STATUSES[failure.code], failure.message, _trailer(failure))

    async def _generate(self, request: pb.GenerateRequest, context: Context, headers: dict[str, str]) -> None:
        news = asyncio.Event()
        timeout = context.time_remaining()
        requests = self._submitter.open([_prompt(request)], news.set, streaming=True, headers=headers, timeout=timeout)
        try:
            await self._stream(requests[0], news, context)
        finally:
            self._submitter.close(requests)

    async def _stream(self, request: Request, news: asyncio.Event, context: Context) -> None:
        await context.send_initial_metadata((("radixmesh-request-id", request.request_id),))
        ended = False
        while not ended:
            await news.wait()
            news.clear()
            ended = request.ended
            pieces = [_response(request, delta) for delta in request.take()]
            if ended and request.error is None:
                pieces[-1].usage.CopyFrom(_usage(request))
            for piece in pieces:
                await self._write(request, piece, context)
            if request.error is not None:
                raise request.error

    async def _write(self, request: Request, piece: pb.GenerateResponse, context: Context) -> None:
        request.blocked_since = self._submitter.now()
        try:
            async with asyncio.timeout(self._submitter.client_timeout):
                await context.write(piece)
        except TimeoutError:
            raise RequestError(ErrorCode.CANCELLED, "the client does not read its stream") from None
        request.blocked_since = None

    async def _abort(self, request: pb.AbortRequest) -> pb.AbortResponse:
        if not _REQUEST_ID.fullmatch(request.request_id):
            raise invalid("request_id: must be 32 hexadecimal digits", "request_id")
        return pb.AbortResponse(found=self._submitter.abort(request.request_id))

    async def _model_info(self, request: pb.GetModelInfoRequest) -> pb.GetModelInfoResponse:
        mesh = self._submitter.mesh
        names = mesh.models()
        if not request.model and len(names) > 1:
            raise invalid(f"model: must be one of {', '.join(names[:20])}", "model")
        name = request.model or next(iter(names), "")
        if name not in names:
            raise unknown_model(name)
        return pb.GetModelInfoResponse(
            model=name,
            max_model_len=mesh.attribute(name, "max_model_len"),
            vocab_size=mesh.attribute(name, "vocab_size"),
            ready_replicas=mesh.ready_replicas(name),
            ready=not mesh.missing(name),
        )


def _prompt(request: pb.GenerateRequest) -> Prompt:
    """Raises RequestError."""
    if len(request.model) > MODEL_NAME_CHARS:
        raise invalid(f"model: must have at most {MODEL_NAME_CHARS} characters", "model")
    fields = _sampling(request)
    params = fields.params()
    form = request.WhichOneof("prompt")
    if form is None:
        raise invalid("prompt: one of text, token_ids and chat is required", "prompt")
    if form == "chat":
        given = [{"role": message.role, "content": message.content} for message in request.chat.messages]
        if not given:
            raise invalid("chat.messages: at least one is required", "chat.messages")
        messages = [validate(ChatMessage, message) for message in given]
        return make_prompt(request.model, fields, params, messages=template_messages(messages))
    if form == "text":
        prompt: str | list[int] = request.text
    else:
        prompt = list(request.token_ids.ids)
        if prompt and max(prompt) > MAX_TOKEN_ID:
            raise invalid(f"token_ids.ids: must be at most {MAX_TOKEN_ID}", "token_ids.ids")
    if not prompt:
        raise invalid(f"{form}: must not be empty", form)
    return make_prompt(request.model, fields, params, prompt)


def _sampling(request: pb.GenerateRequest) -> Sampling:
    """The fields that are set, checked by the same bounds as OpenAI's."""
    given: dict[str, Any] = {"priority": request.priority, "cache_salt": request.cache_salt}
    for field, value in request.params.ListFields():
        if field.name == "logit_bias":
            given[field.name] = dict(value)
        else:
            given[field.name] = list(value) if field.name in ("stop", "stop_token_ids") else value
    return validate(Sampling, given)


def _response(request: Request, delta: Delta) -> pb.GenerateResponse:
    response = pb.GenerateResponse(
        request_id=request.request_id,
        choice=delta.choice,
        text=delta.text,
        token_ids=delta.tokens,
        finish_reason=_FINISH[delta.finish],
    )
    if isinstance(delta.stop_reason, str):
        response.stop_string = delta.stop_reason
    elif delta.stop_reason is not None:
        response.stop_token_id = delta.stop_reason
    return response


def _usage(request: Request) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=request.prompt_tokens, output_tokens=request.output_tokens, cached_tokens=request.cached_tokens
    )


def _trailer(error: RequestError) -> tuple[tuple[str, str], ...]:
    param = {} if error.param is None else {"radixmesh-error-param": error.param.encode("ascii", "replace").decode()}
    wait = {name.lower(): value for name, value in retry_after(error).items()}
    return tuple({"radixmesh-error-code": error.code.value, **param, **wait}.items())
