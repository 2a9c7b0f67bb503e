"""The two lanes of a mailbox, without a bus."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.shared.actor import mailbox
from radixmesh.shared.actor.mailbox import ENVELOPE_BYTES, Lane, Mailbox, lane_of
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.messages import Message, WhoIsThere, pack, tag_of

_REQUESTS = {"Submit", "Admit"}


def envelope(data: bytes = b"", subject: str = "s") -> Envelope:
    return Envelope(subject, data, "", None)


@pytest.mark.parametrize("tag", sorted(Message._registry))
def test_only_new_work_waits_with_the_requests(tag: str) -> None:
    kind = Message._registry[tag]
    data = pack(kind.model_construct())
    assert tag_of(data) == tag
    assert lane_of(envelope(data)) is (Lane.REQUESTS if tag in _REQUESTS else Lane.CONTROL)


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"\x93", b"\x93\xa5Ad", b"\x92\xa5Admit\x01", b"\x93\xa3???", b"\xc1" * 99, b"\x93\x01"]
)
def test_what_is_no_message_takes_no_room_from_control_traffic(data: bytes) -> None:
    assert tag_of(data) == ""
    assert lane_of(envelope(data)) is Lane.REQUESTS


@given(st.binary(max_size=200))
def test_a_tag_is_found_in_anything_or_nothing(data: bytes) -> None:
    assert tag_of(data) in {"", *Message._registry}


@given(
    st.lists(st.one_of(st.sampled_from([Lane.CONTROL, Lane.REQUESTS]), st.none()), max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_each_lane_is_in_order_and_within_its_bound(moves: list[Lane | None], most: int, control: int) -> None:
    """Puts, and gets (None), compared with two plain lists."""

    async def play() -> None:
        box = Mailbox(most, control * ENVELOPE_BYTES)
        model: dict[Lane, list[str]] = {Lane.CONTROL: [], Lane.REQUESTS: []}
        bounds = {Lane.CONTROL: control, Lane.REQUESTS: most}
        for number, lane in enumerate(moves):
            if lane is not None:
                fits = len(model[lane]) < bounds[lane]
                assert box.put(envelope(subject=str(number)), lane) is fits
                model[lane] += [str(number)] if fits else []
            elif first := next((lane for lane in (Lane.CONTROL, Lane.REQUESTS) if model[lane]), None):
                got, where = await box.get()
                assert (got.subject, where) == (model[first].pop(0), first)
            assert all(box.waiting(lane) == len(model[lane]) for lane in Lane)

    asyncio.run(play())


async def test_a_reader_is_woken() -> None:
    box = Mailbox(1)
    reading = asyncio.ensure_future(box.get())
    await asyncio.sleep(0)
    assert box.put(envelope(), Lane.REQUESTS)
    assert (await asyncio.wait_for(reading, 20))[1] is Lane.REQUESTS


def test_a_message_larger_than_the_lane_comes_in_alone() -> None:
    box = Mailbox(1, control_bytes=100)
    large = envelope(bytes(1000))
    assert box.put(large, Lane.CONTROL)
    assert not box.put(envelope(), Lane.CONTROL)
    assert box.put(large, Lane.REQUESTS)


def test_control_traffic_of_a_minute_has_room() -> None:
    """Heartbeats of a thousand services and the reports of a thousand steps a second."""
    beats, reports = 1000 * 30, 60 * 1000
    assert (beats + reports) * (len(pack(WhoIsThere())) + ENVELOPE_BYTES) < mailbox.CONTROL_BYTES
