import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.bench.traffic.stream import DONE, SseParser, StreamError, Usage, error_text, read_chunk

STREAM = (
    b': beat\n\ndata: {"a": 1}\r\n\r\ndata:{"b": "\xc3\xa9"}\n\n'
    b"event: x\nid: 3\ndata: one\ndata: two\n\ndata: [DONE]\n\n"
)
EVENTS = [b'{"a": 1}', b'{"b": "\xc3\xa9"}', b"one\ntwo", DONE]


@given(cuts=st.lists(st.integers(0, len(STREAM))))
def test_events_do_not_depend_on_how_the_bytes_were_cut(cuts: list[int]) -> None:
    parser, edges = SseParser(), [0, *sorted(cuts), len(STREAM)]
    events = [event for low, high in itertools.pairwise(edges) for event in parser.feed(STREAM[low:high])]
    assert events == EVENTS


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radixmesh.bench.traffic.stream.MAX_EVENT_BYTES", 10)
    with pytest.raises(StreamError, match="more than 10 bytes"):
        SseParser().feed(b"data: 0123456789")


@pytest.mark.parametrize(
    ("choice", "output"),
    [
        ({"text": "a", "finish_reason": None}, True),
        ({"text": "", "finish_reason": None}, True),
        ({"text": "", "finish_reason": "length"}, False),
        ({"text": "a", "finish_reason": "length"}, True),
        ({"delta": {"role": "assistant", "content": ""}, "finish_reason": None}, False),
        ({"delta": {"role": "assistant", "content": "a"}, "finish_reason": None}, True),
        ({"delta": {"content": ""}}, True),
        ({"delta": {"reasoning_content": "hm"}}, True),
        ({"delta": {}, "finish_reason": "stop"}, False),
    ],
)
def test_which_chunks_are_output(choice: dict[str, Any], output: bool) -> None:
    chunk = read_chunk(json.dumps({"choices": [choice]}).encode())
    assert chunk.choice
    assert chunk.output is output
    assert chunk.finish_reason == choice.get("finish_reason")


def test_usage() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    assert read_chunk(json.dumps({"choices": [], "usage": usage}).encode()).usage == Usage(7, 3, None)
    usage_with_cache = usage | {"prompt_tokens_details": {"cached_tokens": 4}}
    assert read_chunk(json.dumps({"choices": [], "usage": usage_with_cache}).encode()).usage == Usage(7, 3, 4)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b'{"error": {"message": "out of\\n memory"}}', "^out of memory$"),
        (b'{"error": "busy"}', "^busy$"),
        (b'{"object": "error", "message": "old form"}', "^old form$"),
        (b'{"choices": [{"text": "", "finish_reason": "abort"}]}', "'abort'"),
        (b"nonsense", "unreadable chunk: b'nonsense'"),
        (b"[1]", "unreadable chunk"),
        (b'{"choices": [{}]}', "unreadable chunk"),
        (b'{"choices": [], "usage": {"prompt_tokens": 1}}', "unreadable chunk"),
    ],
)
def test_errors_within_a_stream(payload: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        read_chunk(payload)


def test_error_text_is_bounded_and_one_line() -> None:
    assert error_text({"detail": "not\nfound"}) == "not found"
    assert len(error_text("x" * 10_000)) == 300
