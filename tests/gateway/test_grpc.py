"""The gRPC face, over a real channel."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from radixmesh.services.gateway.faces.grpc import generate
from radixmesh.services.gateway.faces.grpc import radixmesh_pb2 as pb
from radixmesh.services.gateway.faces.grpc.radixmesh_pb2_grpc import RadixMeshStub
from radixmesh.services.gateway.service import Gateway
from radixmesh.shared.messages import State
from tests.gateway.conftest import StartGateway
from tests.gateway.ring import CACHED_TOKENS, MODEL, PROMPT_TOKENS, Ring, token, words

Code = grpc.StatusCode


@pytest.fixture
async def gateway(ring: Ring, start_gateway: StartGateway) -> Gateway:
    gateway = await start_gateway(grpc_port=0)
    await ring.until(lambda: not gateway.not_ready())
    return gateway


@pytest.fixture
async def channel(gateway: Gateway) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(gateway.grpc_address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return RadixMeshStub(channel)


def generate_request(text: str = "echo:4", **params: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(model=MODEL, text=text, params=pb.SamplingParams(**params))


async def test_generate(stub: Any, ring: Ring) -> None:
    call = stub.Generate(generate_request("echo:4", n=2, temperature=0.5, logit_bias={5: -1.5}, stop=["END"], seed=3))
    responses = [response async for response in call]
    request_id = ring.submits[0].request_id
    assert dict(await call.initial_metadata())["radixmesh-request-id"] == request_id
    assert {response.request_id for response in responses} == {request_id}
    for choice in (0, 1):
        mine = [response for response in responses if response.choice == choice]
        assert "".join(response.text for response in mine) == words(4, choice)
        assert [i for response in mine for i in response.token_ids] == [token(choice, index) for index in range(4)]
        assert [response.finish_reason for response in mine if response.finish_reason] == [pb.FINISH_REASON_STOP]
    assert not any(response.HasField("usage") for response in responses[:-1])
    assert responses[-1].usage == pb.Usage(prompt_tokens=PROMPT_TOKENS, output_tokens=8, cached_tokens=CACHED_TOKENS)
    params = ring.submits[0].work.params
    assert (params.n, params.temperature, params.logit_bias, params.stop) == (2, 0.5, {5: -1.5}, ["END"])
    assert (params.seed, params.max_tokens) == (3, None)


@pytest.mark.parametrize("model", ["", "gpt-17"])
async def test_the_only_model_goes_by_any_name_unless_names_are_strict(
    stub: Any, ring: Ring, start_gateway: StartGateway, model: str
) -> None:
    request = pb.GenerateRequest(model=model, text="echo:2")
    assert "".join([response.text async for response in stub.Generate(request)]) == words(2)
    assert ring.submits[0].model == MODEL
    strict = await start_gateway(grpc_port=0, strict_model_names=True)
    await ring.until(lambda: not strict.not_ready())
    async with grpc.aio.insecure_channel(strict.grpc_address) as channel:
        call = RadixMeshStub(channel).Generate(request)  # type: ignore[no-untyped-call]  # generated
        if not model:
            assert "".join([response.text async for response in call]) == words(2)
            return
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await anext(aiter(call))
        assert raised.value.code() is Code.NOT_FOUND


async def test_generate_from_chat_and_token_ids(stub: Any, ring: Ring) -> None:
    messages = [pb.ChatMessage(role="developer", content="be brief"), pb.ChatMessage(role="user", content="echo:1")]
    async for _ in stub.Generate(pb.GenerateRequest(model=MODEL, chat=pb.Chat(messages=messages))):
        pass
    async for _ in stub.Generate(pb.GenerateRequest(model=MODEL, token_ids=pb.TokenIds(ids=[5, 6]))):
        pass
    assert ring.submits[0].messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "echo:1"},
    ]
    assert ring.submits[1].token_ids is not None
    assert ring.submits[1].token_ids.tolist() == [5, 6]


async def test_the_stream_is_unbroken_and_tells_stops(stub: Any) -> None:
    responses = [response async for response in stub.Generate(generate_request("death"))]
    assert "".join(response.text for response in responses) == words(9)
    assert responses[-1].WhichOneof("stop_reason") is None
    responses = [response async for response in stub.Generate(generate_request("stop"))]
    assert responses[-1].stop_string == "END"


@pytest.mark.parametrize(
    ("request_", "code", "param"),
    [
        (generate_request(n=0), Code.INVALID_ARGUMENT, "n"),
        (generate_request(temperature=float("nan")), Code.INVALID_ARGUMENT, "temperature"),
        (generate_request(repetition_penalty=1e-320), Code.INVALID_ARGUMENT, "repetition_penalty"),
        (generate_request(logit_bias={1: float("inf")}), Code.INVALID_ARGUMENT, "logit_bias.1"),
        (generate_request(max_tokens=2, min_tokens=3), Code.INVALID_ARGUMENT, "min_tokens"),
        (generate_request(""), Code.INVALID_ARGUMENT, "text"),
        (pb.GenerateRequest(model=MODEL), Code.INVALID_ARGUMENT, "prompt"),
        (pb.GenerateRequest(model="m" * 257, text="x"), Code.INVALID_ARGUMENT, "model"),
        (pb.GenerateRequest(model=MODEL, chat=pb.Chat()), Code.INVALID_ARGUMENT, "chat.messages"),
        (
            pb.GenerateRequest(model=MODEL, chat=pb.Chat(messages=[pb.ChatMessage(role="x")])),
            Code.INVALID_ARGUMENT,
            "role",
        ),
        (
            pb.GenerateRequest(model=MODEL, token_ids=pb.TokenIds(ids=[2**31])),
            Code.INVALID_ARGUMENT,
            "token_ids.ids",
        ),
        (generate_request("fail:queue_full"), Code.RESOURCE_EXHAUSTED, "prompt"),
        (generate_request("failmid:internal_error"), Code.INTERNAL, None),
    ],
)
async def test_errors(stub: Any, request_: pb.GenerateRequest, code: Code, param: str | None) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.Generate(request_):
            pass
    trailer = dict(raised.value.trailing_metadata())
    assert (raised.value.code(), trailer.get("radixmesh-error-param")) == (code, param)
    assert raised.value.details()
    if code is Code.RESOURCE_EXHAUSTED:
        assert trailer["retry-after"] == "7"


@pytest.mark.parametrize("method", ["Generate", "Abort", "GetModelInfo"])
async def test_bytes_that_are_no_message(
    channel: grpc.aio.Channel, method: str, ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    call = channel.unary_stream(f"/radixmesh.v1.RadixMesh/{method}")(b"\x0a\xff")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await anext(aiter(call))
    assert raised.value.code() is Code.INVALID_ARGUMENT
    assert method in (raised.value.details() or "")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert not ring.submits


async def test_a_client_that_leaves_is_cancelled(stub: Any, ring: Ring, gateway: Gateway) -> None:
    call = stub.Generate(generate_request("silence:2"))
    await call.read()
    call.cancel()
    await ring.until(lambda: len(ring.cancels) == 1)
    await ring.until(lambda: len(gateway.submitter.table) == 0)


async def test_the_calls_deadline_is_the_requests(stub: Any, ring: Ring, gateway: Gateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.Generate(generate_request("silence:2"), timeout=0.5):
            pass
    assert raised.value.code() is Code.DEADLINE_EXCEEDED
    await ring.until(lambda: len(ring.cancels) == 1)
    assert ring.submits[0].time_left < 1.0  # a little more than 0.5: gRPC rounds what is left up to milliseconds


async def test_abort(stub: Any, ring: Ring, gateway: Gateway) -> None:
    call = stub.Generate(generate_request("silence:2"))
    first = await call.read()
    assert (await stub.Abort(pb.AbortRequest(request_id=first.request_id))).found
    last = first
    while (response := await call.read()) is not grpc.aio.EOF:
        last = response
    assert last.finish_reason == pb.FINISH_REASON_CANCELLED
    assert last.usage.output_tokens == 2
    await ring.until(lambda: ring.cancels == [(first.request_id, 0)])
    assert not (await stub.Abort(pb.AbortRequest(request_id="0" * 32))).found
    await ring.until(lambda: ("0" * 32, 2**31 - 1) in ring.cancels)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Abort(pb.AbortRequest(request_id="nonsense"))
    assert raised.value.code() is Code.INVALID_ARGUMENT


async def test_model_info(stub: Any) -> None:
    expected = pb.GetModelInfoResponse(model=MODEL, max_model_len=512, vocab_size=300, ready_replicas=1, ready=True)
    assert await stub.GetModelInfo(pb.GetModelInfoRequest()) == expected
    assert await stub.GetModelInfo(pb.GetModelInfoRequest(model=MODEL)) == expected
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetModelInfo(pb.GetModelInfoRequest(model="nobody"))
    assert raised.value.code() is Code.NOT_FOUND


async def test_health_follows_readiness(channel: grpc.aio.Channel, ring: Ring) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    states = health_pb2.HealthCheckResponse
    watch = health.Watch(health_pb2.HealthCheckRequest(service="radixmesh.v1.RadixMesh"))
    seen = [(await watch.read()).status]
    while seen[-1] != states.SERVING:
        seen.append((await watch.read()).status)
    ring.scheduler.state = State.DRAINING
    await ring.beat()
    assert (await watch.read()).status == states.NOT_SERVING
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == states.NOT_SERVING
    watch.cancel()


async def test_reflection_tells_the_schema(channel: grpc.aio.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def ask(**question: str) -> Any:
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]))
        return await call.read()

    listed = (await ask(list_services="")).list_services_response.service
    names = {service.name for service in listed}
    assert {"radixmesh.v1.RadixMesh", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == names
    answer = (await ask(file_containing_symbol="radixmesh.v1.RadixMesh")).file_descriptor_response
    found = descriptor_pb2.FileDescriptorProto.FromString(answer.file_descriptor_proto[0])
    assert [method.name for method in found.service[0].method] == ["Generate", "Abort", "GetModelInfo"]


async def test_api_key(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(grpc_port=0, api_key="s3cret")
    await ring.until(lambda: not gateway.not_ready())
    async with grpc.aio.insecure_channel(gateway.grpc_address) as channel:
        stub: Any = RadixMeshStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetModelInfo(pb.GetModelInfoRequest())
        assert raised.value.code() is Code.UNAUTHENTICATED
        assert (await stub.GetModelInfo(pb.GetModelInfoRequest(), metadata=(("authorization", "Bearer s3cret"),))).ready
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status


async def test_calls_are_counted(stub: Any, gateway: Gateway) -> None:
    async for _ in stub.Generate(generate_request()):
        pass
    async with aiohttp.ClientSession(gateway.http_url) as http, http.get("/metrics") as response:
        assert 'requests_total{endpoint="grpc/Generate",status="OK"} 1.0' in await response.text()


def test_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    out = tmp_path / "set.bin"
    flags = [f"-I{generate.SOURCES}", f"--descriptor_set_out={out}", generate.PROTO]
    assert generate.protoc.main(["protoc", *flags]) == 0
    (compiled,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    checked_in = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(checked_in)
    for message in compiled.message_type:
        for field in [*message.field, *(field for nested in message.nested_type for field in nested.field)]:
            field.ClearField("json_name")  # left out of generated code
    assert checked_in == compiled
