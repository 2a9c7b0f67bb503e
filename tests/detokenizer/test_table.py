"""Open requests: messages in, messages out, without a bus."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.detokenizer.outgoing import Outgoing
from radixmesh.services.detokenizer.table import Table
from radixmesh.services.detokenizer.vocabulary import Vocabulary
from radixmesh.shared.errors import ErrorCode, MessageError
from radixmesh.shared.messages import (
    Cancel,
    Choice,
    Finish,
    Message,
    OpenText,
    RequestFailed,
    TextBatch,
    TokenBatch,
    pack,
    unpack,
)
from radixmesh.shared.subjects import Subjects
from tests.tokenizer.small_tokenizers import byte_level

VOCABULARY = Vocabulary(byte_level())
SUBJECTS = Subjects("t")
R1, R2 = "1" * 32, "2" * 32


def ids_of(text: str) -> list[int]:
    ids: list[int] = byte_level().encode(text).ids
    return ids


def table(**options: Any) -> Table:
    return Table(VOCABULARY, **options)


def opened(request_id: str = R1, **fields: Any) -> OpenText:
    defaults = {
        "request_id": request_id,
        "attempt": 0,
        "gateway_id": "gw",
        "prompt_tail": ids_of("Say: "),
        "prompt_tokens": 7,
        "choices": [Choice(index=0)],
        "time_left": 1000.0,
    }
    return OpenText.model_validate({**defaults, **fields})


def batch(*rows: tuple[str, int, int, Sequence[int], Finish], **columns: Any) -> TokenBatch:
    """Rows are (request, choice, first index, tokens, finish), all of attempt 0 unless a column says else."""
    defaults = {
        "replica_id": "rep",
        "epoch": 1,
        "request_ids": [row[0] for row in rows],
        "choices": [row[1] for row in rows],
        "attempts": [0] * len(rows),
        "first_index": [row[2] for row in rows],
        "counts": [len(row[3]) for row in rows],
        "tokens": [token for row in rows for token in row[3]],
        "finish": [row[4] for row in rows],
        "cached_tokens": [3] * len(rows),
    }
    return TokenBatch.model_validate({**defaults, **columns})


def sent(out: Outgoing) -> dict[str, Message]:
    """Messages by subject; all go over the wire and back."""
    messages = [(subject, unpack(pack(message))) for subject, message in out.messages(SUBJECTS, "detok")]
    assert len({subject for subject, _ in messages}) == len(messages)
    return dict(messages)


def text_rows(out: Outgoing, gateway: str = "gw") -> list[tuple[str, int, int, list[int], str, Finish]]:
    """(request, choice, first index, tokens, text, finish) of the one TextBatch for `gateway`."""
    message = sent(out).get(SUBJECTS.gateway_inbox(gateway))
    if message is None:
        return []
    assert isinstance(message, TextBatch)
    rows, start = [], 0
    for position, request_id in enumerate(message.request_ids):
        count = int(message.counts[position])
        rows.append(
            (
                request_id,
                int(message.choices[position]),
                int(message.first_index[position]),
                message.tokens[start : start + count].tolist(),
                message.texts[position],
                Finish(int(message.finish[position])),
            )
        )
        start += count
    return rows


RUN, STOP, LENGTH = Finish.RUNNING, Finish.STOP, Finish.LENGTH


def test_a_plain_request() -> None:
    unit, ids = table(), ids_of("the quick fox")
    assert sent(unit.open(opened(), 0.0)) == {}
    assert text_rows(unit.tokens(batch((R1, 0, 0, ids[:2], RUN)), 1.0))[0][3] == ids[:2]
    out = unit.tokens(batch((R1, 0, 2, [*ids[2:], 2], STOP)), 1.0)
    (row,) = text_rows(out)
    assert row[2:4] == (2, [*ids[2:], 2])
    assert row[4:] == (byte_level().decode(ids)[len(byte_level().decode(ids[:2])) :], STOP)
    message = sent(out)[SUBJECTS.gateway_inbox("gw")]
    assert isinstance(message, TextBatch)
    assert message.detokenizer_id == "detok"
    assert (message.prompt_tokens.tolist(), message.cached_tokens.tolist(), message.stop_reasons) == ([7], [3], [None])
    assert len(unit) == 0


def test_one_batch_per_gateway() -> None:
    unit = table()
    for request_id, gateway in ((R1, "a"), (R2, "b"), ("3" * 32, "a")):
        unit.open(opened(request_id, gateway_id=gateway), 0.0)
    out = unit.tokens(batch((R1, 0, 0, [70], RUN), (R2, 0, 0, [71], RUN), ("3" * 32, 0, 0, [72, 73], LENGTH)), 1.0)
    assert [row[0] for row in text_rows(out, "a")] == [R1, "3" * 32]
    assert [row[3] for row in text_rows(out, "b")] == [[71]]


def test_stop_string_ends_the_choice_and_cancels_it_at_the_replica() -> None:
    unit, ids = table(), ids_of("one two three")
    unit.open(opened(stop=["wo th"], choices=[Choice(index=0), Choice(index=1)]), 0.0)
    out = unit.tokens(batch((R1, 1, 0, ids, RUN)), 1.0)
    ((_, choice, _, tokens, text, finish),) = text_rows(out)
    assert (choice, text, finish) == (1, "one t", STOP)
    used = next(n for n in range(len(ids)) if "wo th" in byte_level().decode(ids[:n]))
    assert tokens == ids[:used]
    messages = sent(out)
    text_batch = messages[SUBJECTS.gateway_inbox("gw")]
    assert isinstance(text_batch, TextBatch)
    assert text_batch.stop_reasons == ["wo th"]
    assert messages[SUBJECTS.replica_inbox("rep")] == Cancel.model_validate(
        {"request_ids": [R1], "choices": [1], "attempts": [0]}
    )
    assert len(unit) == 1
    assert sent(unit.tokens(batch((R1, 1, len(ids), [70], RUN)), 1.0)) == {}


def test_stop_strings_are_looked_for_after_min_tokens_only() -> None:
    """Not in the text of the first tokens, nor across its end; those of earlier attempts count in."""
    first, more = ids_of("STOP or ST"), ids_of("OP, or STOP it")
    for resumed in (0, 2, len(first)):
        unit = table()
        choice = Choice.model_validate({"index": 0, "resumed": first[:resumed]})
        unit.open(opened(stop=["STOP"], min_tokens=len(first), choices=[choice]), 0.0)
        given = [*first, *more][resumed:]
        ((*_, text, finish),) = text_rows(unit.tokens(batch((R1, 0, resumed, given, RUN)), 1.0))
        shown = byte_level().decode(first[:resumed])
        assert (shown + text, finish) == ("STOP or STOP, or ", STOP)


def test_held_text_is_flushed_by_the_workers_end() -> None:
    unit, ids = table(), ids_of("maybe ST")
    unit.open(opened(stop=["STOP"]), 0.0)
    assert text_rows(unit.tokens(batch((R1, 0, 0, ids, RUN)), 1.0))[0][4] == "maybe "
    out = unit.tokens(batch((R1, 0, len(ids), [], LENGTH)), 1.0)
    assert text_rows(out) == [(R1, 0, len(ids), [], "ST", LENGTH)]
    assert SUBJECTS.replica_inbox("rep") not in sent(out)


def test_a_stop_string_in_the_last_batch_needs_no_cancel() -> None:
    unit = table()
    unit.open(opened(stop=["STOP"]), 0.0)
    out = unit.tokens(batch((R1, 0, 0, ids_of("a STOP"), LENGTH)), 1.0)
    assert text_rows(out)[0][4:] == ("a ", STOP)
    assert SUBJECTS.replica_inbox("rep") not in sent(out)


@pytest.mark.parametrize(("token", "reason"), [(70, 70), (2, 2), (2, -1), (70, -1)])
def test_the_token_that_ends_the_text_is_not_shown(token: int, reason: int) -> None:
    unit = table()
    unit.open(opened(skip_special_tokens=False), 0.0)
    out = unit.tokens(batch((R1, 0, 0, [*ids_of("end"), token], STOP), stop_tokens=[reason]), 1.0)
    message = sent(out)[SUBJECTS.gateway_inbox("gw")]
    assert isinstance(message, TextBatch)
    assert message.texts == ["end"]
    assert message.tokens.tolist()[-1] == token
    assert message.stop_reasons == [reason if reason >= 0 else None]


def test_what_was_seen_is_dropped() -> None:
    unit, ids = table(), ids_of("the quick fox jumps")
    unit.open(opened(), 0.0)
    unit.tokens(batch((R1, 0, 0, ids[:3], RUN)), 1.0)
    assert sent(unit.tokens(batch((R1, 0, 0, ids[:3], RUN)), 1.0)) == {}
    ((_, _, first, tokens, text, _),) = text_rows(unit.tokens(batch((R1, 0, 1, ids[1:5], RUN)), 1.0))
    assert (first, tokens) == (3, ids[3:5])
    assert text == byte_level().decode(ids[:5])[len(byte_level().decode(ids[:3])) :]


def test_a_gap_fails_the_request() -> None:
    unit = table()
    unit.open(opened(choices=[Choice(index=0), Choice(index=1)]), 0.0)
    messages = sent(unit.tokens(batch((R1, 0, 2, [70], RUN)), 1.0))
    failed = messages[SUBJECTS.gateway_inbox("gw")]
    assert isinstance(failed, RequestFailed)
    assert (failed.code, failed.request_id, failed.attempt, failed.choice) == (ErrorCode.REPLICA_LOST, R1, 0, -1)
    assert "0 to 1" in failed.message
    assert messages[SUBJECTS.replica_inbox("rep")].choices.tolist() == [-1]  # type: ignore[attr-defined]
    assert sent(unit.tokens(batch((R1, 1, 0, [70], RUN)), 1.0)) == {}
    assert len(unit) == 0


def test_attempts_fence() -> None:
    unit, ids = table(), ids_of("the quick")
    unit.open(opened(), 0.0)
    unit.tokens(batch((R1, 0, 0, ids[:1], RUN)), 1.0)
    unit.open(opened(attempt=1, choices=[Choice(index=0, resumed=ids[:1])]), 0.0)
    assert sent(unit.tokens(batch((R1, 0, 1, ids[1:], LENGTH)), 1.0)) == {}
    unit.open(opened(), 0.0)
    ((_, _, first, tokens, text, _),) = text_rows(unit.tokens(batch((R1, 0, 1, ids[1:], LENGTH), attempts=[1]), 1.0))
    assert (first, tokens) == (1, ids[1:])
    assert byte_level().decode(ids[:1]) + text == "the quick"
    assert len(unit) == 0


def test_thoughts_travel_beside_the_text_and_are_not_repeated() -> None:
    """A second attempt goes on inside of the closing tag; rows without thoughts have an empty one beside others."""
    unit, ids = table(), ids_of("so so</think>it is")
    asked = {"reasoning_tags": ("<think>", "</think>"), "reasoning_open": True}
    cut = next(n for n in range(len(ids)) if byte_level().decode(ids[:n]).startswith("so so</"))
    unit.open(opened(**asked), 0.0)
    unit.open(opened(R2), 0.0)
    rows = batch((R1, 0, 0, ids[:cut], RUN), (R2, 0, 0, ids_of("no"), RUN))
    first = sent(unit.tokens(rows, 1.0))[SUBJECTS.gateway_inbox("gw")]
    unit.open(opened(attempt=1, choices=[Choice(index=0, resumed=ids[:cut])], **asked), 1.0)
    rows = batch((R1, 0, cut, ids[cut:], LENGTH), attempts=[1])
    second = sent(unit.tokens(rows, 1.0))[SUBJECTS.gateway_inbox("gw")]
    assert isinstance(first, TextBatch)
    assert isinstance(second, TextBatch)
    assert (first.reasoning, first.texts) == (["so so", ""], ["", "no"])
    assert (second.reasoning, second.texts) == ([], ["it is"])


def test_tokens_before_their_open_text_wait() -> None:
    unit, ids = table(hold_seconds=2.0), ids_of("early bird")
    assert sent(unit.tokens(batch((R1, 0, 0, ids[:1], RUN)), 1.0)) == {}
    assert sent(unit.tokens(batch((R1, 0, 1, ids[1:], LENGTH)), 1.5)) == {}
    rows = text_rows(unit.open(opened(), 0.0))
    assert "".join(row[4] for row in rows) == "early bird"
    assert len(unit) == 0


def test_tokens_without_an_open_text_are_dropped_and_their_sequence_ended() -> None:
    unit = table(hold_seconds=2.0)
    unit.tokens(batch((R1, 0, 0, [70], RUN), (R1, 1, 0, [70], RUN)), 1.0)
    assert sent(unit.tick(2.9)) == {}
    cancel = sent(unit.tick(3.1))[SUBJECTS.replica_inbox("rep")]
    assert cancel == Cancel.model_validate({"request_ids": [R1], "choices": [-1], "attempts": [0]})
    failed = sent(unit.open(opened(), 0.0))[SUBJECTS.gateway_inbox("gw")]
    assert isinstance(failed, RequestFailed)
    assert failed.code is ErrorCode.REPLICA_LOST
    assert sent(unit.open(opened(attempt=1), 0.0)) == {}
    assert len(unit) == 1


def test_cancel_is_silent_and_lasting() -> None:
    unit = table()
    unit.open(opened(choices=[Choice(index=0), Choice(index=1)]), 0.0)
    unit.cancel(Cancel.model_validate({"request_ids": [R1], "choices": [0], "attempts": [0]}))
    assert [row[1] for row in text_rows(unit.tokens(batch((R1, 0, 0, [70], RUN), (R1, 1, 0, [70], RUN)), 1.0))] == [1]
    unit.cancel(Cancel.model_validate({"request_ids": [R1, R2], "choices": [-1, -1], "attempts": [0, 0]}))
    assert len(unit) == 0
    unit.open(opened(R2), 0.0)
    assert len(unit) == 0
    assert sent(unit.tokens(batch((R2, 0, 0, [70], RUN)), 1.0)) == {}
    assert sent(unit.tick(100.0)) == {}
    unit.open(opened(R2, attempt=1), 0.0)
    unit.cancel(Cancel.model_validate({"request_ids": [R2], "choices": [-1], "attempts": [0]}))
    assert len(unit) == 1


def test_deadline_and_bounds() -> None:
    unit = table(max_requests=1)
    unit.open(opened(time_left=10.0), 100.0)
    failed = sent(unit.open(opened(R2), 100.0))[SUBJECTS.gateway_inbox("gw")]
    assert isinstance(failed, RequestFailed)
    assert failed.code is ErrorCode.QUEUE_FULL
    assert failed.retry_after is not None
    assert sent(unit.tick(109.0)) == {}
    assert len(unit) == 1
    assert sent(unit.tick(110.0)) == {}
    assert len(unit) == 0
    unit.open(opened("3" * 32, choices=[]), 0.0)
    assert len(unit) == 0


def test_held_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radixmesh.services.detokenizer.table.MAX_PENDING_ROWS", 3)
    unit = table()
    for number in range(5):
        unit.tokens(batch((f"{number:032x}", 0, 0, [70], LENGTH)), 1.0)
    opens = [sent(unit.open(opened(f"{number:032x}"), 0.0)) for number in range(5)]
    kinds = [type(message).__name__ for messages in opens for message in messages.values()]
    assert kinds == ["RequestFailed"] * 2 + ["TextBatch"] * 3


def test_logprobs_are_passed_through_by_row() -> None:
    unit = table()
    unit.open(opened(R1, gateway_id="a"), 0.0)
    unit.open(opened(R2, gateway_id="b"), 0.0)
    unit.tokens(batch((R2, 0, 0, [70], RUN)), 1.0)
    out = unit.tokens(
        batch(
            (R1, 0, 0, [70, 71], RUN),
            (R2, 0, 0, [70, 73], RUN),
            logprobs=[-1.0, math.nan, -3.0, -4.0],
            top_counts=[2, 0, 1, 2],
            top_ids=[1, 2, 3, 4, 5],
            top_logprobs=[-1.0, -2.0, -3.0, -4.0, -5.0],
        ),
        1.0,
    )
    messages = sent(out)
    first, second = messages[SUBJECTS.gateway_inbox("a")], messages[SUBJECTS.gateway_inbox("b")]
    assert isinstance(first, TextBatch)
    assert isinstance(second, TextBatch)
    assert first.logprobs[0] == -1.0
    assert math.isnan(first.logprobs[1])
    assert (first.top_counts.tolist(), first.top_ids.tolist()) == ([2, 0], [1, 2])
    assert (second.tokens.tolist(), second.logprobs.tolist(), second.top_counts.tolist()) == ([73], [-4.0], [2])
    assert (second.top_ids.tolist(), second.top_logprobs.tolist()) == ([4, 5], [-4.0, -5.0])


@pytest.mark.parametrize(
    "columns",
    [
        {"choices": [0, 1]},
        {"counts": [2]},
        {"counts": [-1]},
        {"finish": [9]},
        {"stop_tokens": [1, 2]},
        {"traceparents": ["", ""]},
        {"logprobs": [0.0, 0.0]},
        {"top_counts": [1]},
        {"top_counts": [-1]},
    ],
)
def test_inconsistent_batches_are_refused(columns: dict[str, Any]) -> None:
    unit = table()
    unit.open(opened(), 0.0)
    with pytest.raises(MessageError, match=r"TokenBatch\."):
        unit.tokens(batch((R1, 0, 0, [70], RUN), **columns), 1.0)
    assert text_rows(unit.tokens(batch((R1, 0, 0, [70], RUN)), 1.0))


@settings(max_examples=80)
@given(data=st.data())
def test_any_cut_and_any_resumption_give_the_same_stream(data: st.DataObject) -> None:
    """Text, tokens and end are those of a single batch, wherever attempts break off and batches are cut."""
    ids = data.draw(st.lists(st.integers(3, 399), min_size=1, max_size=24))
    stops = data.draw(st.lists(st.sampled_from(["e", "th", " q", "\n", "ü", "a b"]), max_size=2, unique=True))
    whole = table()
    whole.open(opened(stop=stops), 0.0)
    (wanted,) = text_rows(whole.tokens(batch((R1, 0, 0, ids, LENGTH)), 1.0))

    unit, attempt, seen, text, finish = table(), 0, 0, "", RUN
    unit.open(opened(stop=stops), 0.0)
    while finish is RUN:
        if data.draw(st.booleans(), label="attempt lost"):
            attempt += 1
            if data.draw(st.booleans(), label="other detokenizer"):
                unit = table()
            unit.open(opened(stop=stops, attempt=attempt, choices=[Choice(index=0, resumed=ids[:seen])]), 0.0)
        count = data.draw(st.integers(1, len(ids) - seen), label="count")
        end = LENGTH if seen + count == len(ids) else RUN
        rows = text_rows(unit.tokens(batch((R1, 0, seen, ids[seen : seen + count], end), attempts=[attempt]), 1.0))
        ((_, _, first, tokens, part, finish),) = rows
        assert (first, tokens) == (seen, ids[seen : seen + len(tokens)])
        seen, text = seen + len(tokens), text + part
    assert (ids[:seen], text, finish) == wanted[3:]
