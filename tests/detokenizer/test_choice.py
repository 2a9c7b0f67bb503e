"""One choice against a model that looks at its whole text at once: hidden tokens, stop strings, thoughts, any cuts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from radixmesh.services.detokenizer.choice import ChoiceText
from radixmesh.services.detokenizer.vocabulary import Vocabulary
from radixmesh.shared.messages import Finish, OpenText
from tests.tokenizer.small_tokenizers import byte_level, sentencepiece

END, START = "<|im_end|>", "<|im_start|>"
TAGS = ("<think>", "</think>")
RUN, STOP, LENGTH = Finish.RUNNING, Finish.STOP, Finish.LENGTH


def thinker() -> Tokenizer:
    """`byte_level` with thoughts: 401 opens and 402 closes some, both are text; 403 and 404 do, and are hidden."""
    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.add_tokens(list(TAGS))
    tokenizer.add_special_tokens([AddedToken("[THINK]"), AddedToken("[/THINK]")])
    return tokenizer


TOKENIZER = thinker()
VOCABULARY = Vocabulary(TOKENIZER)


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text).ids
    return ids


@dataclass
class Whole:
    """All that a choice has come to."""

    text: str
    reasoning: str
    finish: Finish
    reason: str | int | None
    used: int


def whole(
    tokens: Sequence[int],
    finish: Finish = RUN,
    stop_token: int = -1,
    cuts: Sequence[int] = (),
    resumed: int = 0,
    vocabulary: Vocabulary = VOCABULARY,
    **fields: Any,
) -> Whole:
    """What comes of `tokens`, cut before those positions; the first `resumed` are another attempt's."""
    request: dict[str, Any] = {"request_id": "1" * 32, "attempt": 0, "gateway_id": "gw", "prompt_tokens": 1}
    opened = OpenText.model_validate({**request, "prompt_tail": [], "choices": [], "time_left": 60.0, **fields})
    choice = ChoiceText(vocabulary, opened)
    before = choice.advance(tokens[:resumed])
    out = Whole(before.text, before.reasoning, before.finish, before.stop_reason, before.used)
    borders = [resumed, *sorted(cut for cut in set(cuts) if resumed < cut < len(tokens)), len(tokens)]
    for start, until in pairwise(borders):
        if out.finish is not RUN:
            break
        last = until == len(tokens)
        given_token = stop_token if last else -1
        done = choice.advance(tokens[start:until], finish if last else RUN, given_token)
        out = Whole(
            out.text + done.text,
            out.reasoning + done.reasoning,
            done.finish,
            done.stop_reason,
            out.used + done.used,
        )
    return out


# -- the model --


def naive_stop(marked: list[tuple[str, bool, int]], stops: list[str], after: int) -> tuple[int, str | None]:
    """Where the text ends, and by which stop string: the one that is complete first, of those the longest."""
    spelled = "".join(char for char, _, _ in marked)
    begin = sum(number < after for _, _, number in marked)
    for end in range(begin + 1, len(spelled) + 1):
        found = [stop for stop in stops if spelled.endswith(stop, begin, end)]
        if found:
            longest = max(found, key=len)
            return end - len(longest), longest
    return len(spelled), None


def naive_split(marked: list[tuple[str, bool]], tags: tuple[str, str], opened: bool) -> tuple[str, str]:
    """Thoughts and content of text whose characters are marked as shown or not."""
    spelled = "".join(char for char, _ in marked)

    def visible(start: int, end: int | None = None) -> str:
        return "".join(char for char, shown in marked[start:end] if shown)

    start = 0
    while start < len(spelled) and not spelled.startswith(tags[0], start):
        char, shown = marked[start]
        if not (char.isspace() if shown else not opened):
            break
        start += 1
    tagged = spelled.startswith(tags[0], start) and start < len(spelled)
    if not tagged and not opened:
        return "", visible(0)
    begin = start + len(tags[0]) if tagged else 0
    end = spelled.find(tags[1], begin)
    if end < 0:
        return visible(begin).lstrip(), ""
    return visible(begin, end).strip(), visible(end + len(tags[1])).lstrip()


def mark(tokens: Sequence[int], ended: bool, skip: bool) -> list[tuple[str, bool, int]]:
    """(character, whether it is shown, number of the token that made it certain) of the whole text."""
    marked: list[tuple[str, bool, int]] = []
    seen: list[int] = []
    text = ""
    for number, token in enumerate(tokens):
        last = ended and number == len(tokens) - 1
        special = VOCABULARY.is_special(token)
        if last or (skip and special):
            spelled = VOCABULARY.spelling(token) if special else VOCABULARY.decode([token], False)
            marked += [(char, False, number) for char in spelled or ""]
            continue
        seen.append(token)
        now = TOKENIZER.decode(seen, skip_special_tokens=False)
        assert now.startswith(text)
        marked += [(char, True, number) for char in now[len(text) :]]
        text = now
    return marked


ASCII_IDS = [token for token in range(400) if TOKENIZER.decode([token], skip_special_tokens=False).isascii()]
TOKENS = st.one_of(
    st.sampled_from([0, 1, 2, 401, 402, 403, 404, *ids_of("<think>/|im_end\n ab"), *ids_of(" "), *ids_of("\n")]),
    st.sampled_from(ASCII_IDS),
)
STOPS = st.one_of(
    st.sampled_from([END, START, END + START, "a" + END, END + "a", "<|", "|>", "</think>", "k>", "\n", "ab", "e"]),
    st.text(alphabet="ab<|>\n", min_size=1, max_size=3),
)


@settings(max_examples=600)
@given(
    tokens=st.lists(TOKENS, max_size=14),
    stops=st.lists(STOPS, max_size=3),
    cuts=st.lists(st.integers(1, 14), max_size=6),
    resumed=st.integers(0, 3),
    min_tokens=st.integers(0, 4),
    finish=st.sampled_from([RUN, STOP, LENGTH]),
    skip=st.booleans(),
    thinks=st.sampled_from([None, TAGS, ("[THINK]", "[/THINK]")]),
    opened=st.booleans(),
)
def test_any_chain_in_any_cuts_is_what_its_whole_text_says(
    tokens: list[int],
    stops: list[str],
    cuts: list[int],
    resumed: int,
    min_tokens: int,
    finish: Finish,
    skip: bool,
    thinks: tuple[str, str] | None,
    opened: bool,
) -> None:
    ended = finish is STOP and len(tokens) > 0
    marked = mark(tokens, ended, skip)
    length, stop = naive_stop(marked, stops, min_tokens)
    resumed = min(resumed, len(tokens) - 1) if tokens else 0
    if stop is not None:  # an attempt that was resumed had not come to a stop string
        complete = marked[length + len(stop) - 1][2]
        resumed = min(resumed, complete)
    got = whole(
        tokens,
        finish,
        cuts=cuts,
        resumed=resumed,
        stop=stops,
        min_tokens=min_tokens,
        skip_special_tokens=skip,
        reasoning_tags=thinks,
        reasoning_open=opened,
    )
    shown = [(char, seen) for char, seen, _ in marked[:length]]
    reasoning, text = naive_split(shown, thinks, opened) if thinks else ("", "".join(c for c, s in shown if s))
    if stop is not None:
        assert (got.text, got.reasoning, got.finish, got.reason) == (text, reasoning, STOP, stop)
        assert got.used == marked[length + len(stop) - 1][2] + 1
    elif finish is RUN:
        assert text.startswith(got.text)
        assert reasoning.startswith(got.reasoning)
        assert (got.finish, got.reason, got.used) == (RUN, None, len(tokens))
    else:
        assert (got.text, got.reasoning, got.finish, got.reason) == (text, reasoning, finish, None)


# -- stop strings that hidden tokens spell --


@pytest.mark.parametrize(
    ("stop", "hidden", "shown"),
    [
        (END, "the fox", "the fox"),
        ("fox" + END, "the ", "the "),
        (END + "quick", "the fox", "the fox"),
        (END + START, "the foxquick", f"the fox{END}quick"),
        ("x<|im", "the fo", "the fo"),
        ("end|>quick", "the fox", "the fox<|im_"),
        ("|>q", "the fox", "the fox<|im_end"),
    ],
)
def test_a_stop_string_may_be_a_hidden_token_or_a_part_of_it(stop: str, hidden: str, shown: str) -> None:
    """It is found where the whole text, hidden tokens spelled out, has it. What was hidden before it stays so."""
    tokens = [*ids_of("the fox"), 2, *ids_of("quick"), 2, 1, *ids_of("brown")]
    for skip, text in ((True, hidden), (False, shown)):
        got = whole(tokens, cuts=range(20), stop=[stop], skip_special_tokens=skip)
        assert (got.text, got.finish, got.reason) == (text, STOP, stop)


def test_a_stop_string_over_two_hidden_tokens() -> None:
    got = whole([*ids_of("a"), 2, 2, 1, *ids_of("b")], stop=[END + START], cuts=range(9))
    assert (got.text, got.reason, got.used) == ("a", END + START, 4)


def test_text_held_for_a_hidden_stop_string_comes_out_without_it() -> None:
    got = whole([*ids_of("a"), 2, *ids_of("b c")], LENGTH, stop=[END + "x", "a" + END + "bd"], cuts=range(9))
    assert (got.text, got.finish, got.reason) == ("ab c", LENGTH, None)


def test_a_stop_string_that_ends_with_the_end_token_is_what_ended_the_text() -> None:
    tokens = [*ids_of("the fox"), 2]
    for skip in (True, False):
        assert whole(tokens, STOP, stop=[END], skip_special_tokens=skip) == Whole("the fox", "", STOP, END, len(tokens))
        assert whole(tokens, STOP, stop=["fox" + END], skip_special_tokens=skip).text == "the "
        assert whole(tokens, STOP, stop=["cat"], skip_special_tokens=skip).reason is None
    assert whole(tokens, STOP, stop_token=2, stop=["cat"]).reason == 2
    assert whole(tokens, STOP, stop_token=2, stop=[END]).reason == END


def test_hidden_tokens_count_for_min_tokens() -> None:
    got = whole([2, *ids_of("a"), 2, *ids_of("b")], stop=[END], min_tokens=1)
    assert (got.text, got.reason, got.used) == ("a", END, 3)


def test_sentencepiece_tokens_are_spelled_too() -> None:
    tokenizer = sentencepiece()
    the, fox = (tokenizer.get_vocab()[token] for token in ("▁the", "▁fox"))
    got = whole([the, 2, fox], stop=["the</s> f"], vocabulary=Vocabulary(tokenizer))
    assert (got.text, got.reason) == ("", "the</s> f")


# -- thoughts --


@pytest.mark.parametrize(
    ("said", "opened", "reasoning", "content"),
    [
        ("<think>\nhm, 4?\n</think>\n\nIt is 4.", False, "hm, 4?", "It is 4."),
        ("hm, 4?\n</think>\n\nIt is 4.", True, "hm, 4?", "It is 4."),
        ("\n<think>twice opened</think>x", True, "twice opened", "x"),
        ("<think>no end\n", False, "no end\n", ""),
        ("no end </thin", True, "no end </thin", ""),
        ("</think>at once", True, "", "at once"),
        ("<think></think>", False, "", ""),
        ("no thoughts", False, "", "no thoughts"),
        (" \n no thoughts", False, "", " \n no thoughts"),
        ("a literal </think> stays", False, "", "a literal </think> stays"),
        ("say <think>x</think>", False, "", "say <think>x</think>"),
        ("<think>a</think>b</think> <think>c", False, "a", "b</think> <think>c"),
        ("<thin", False, "", "<thin"),
        ("<th ink>", False, "", "<th ink>"),
        (" \n", False, "", " \n"),
        (" \n", True, "", ""),
    ],
)
def test_thoughts_and_content(said: str, opened: bool, reasoning: str, content: str) -> None:
    letters = [token for char in said for token in ids_of(char)]
    for tokens in (ids_of(said), letters):
        for cuts in ((), range(1, 99)):
            got = whole(tokens, LENGTH, cuts=cuts, reasoning_tags=TAGS, reasoning_open=opened)
            assert (got.reasoning, got.text) == (reasoning, content)


def test_hidden_tags_are_tags() -> None:
    empty = whole([404, *ids_of("4")], LENGTH, reasoning_tags=("[THINK]", "[/THINK]"), reasoning_open=True)
    assert (empty.reasoning, empty.text) == ("", "4")
    tokens = [403, *ids_of("hm"), 404, *ids_of("4")]
    got = whole(tokens, LENGTH, reasoning_tags=("[THINK]", "[/THINK]"))
    assert (got.reasoning, got.text) == ("hm", "4")
    assert whole(tokens, LENGTH).text == "hm4"


def test_nothing_is_said_twice_or_lost_after_a_crash_inside_a_tag() -> None:
    letters = [token for char in "<think>a b </think> c" for token in ids_of(char)]
    for resumed in range(len(letters)):
        got = whole(letters, LENGTH, resumed=resumed, reasoning_tags=TAGS, reasoning_open=False)
        assert (got.reasoning, got.text) == ("a b", "c")


def test_a_stop_string_inside_of_thoughts_ends_the_answer() -> None:
    tokens = ids_of("one two three</think>four")
    got = whole(tokens, stop=[" three"], reasoning_tags=TAGS, reasoning_open=True)
    assert (got.reasoning, got.text, got.finish, got.reason) == ("one two", "", STOP, " three")
    got = whole(tokens, stop=["</think>"], reasoning_tags=TAGS, reasoning_open=True)
    assert (got.reasoning, got.text, got.reason) == ("one two three", "", "</think>")
