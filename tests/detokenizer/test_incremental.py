"""Incremental text equals the whole text, however the tokens come."""

import codecs
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer.small_tokenizers import byte_level, metaspace, sentencepiece, wordpiece
from tokenizers import Tokenizer, decoders

from radixmesh.services.detokenizer.incremental import REPLACEMENT, Decoder, WindowDecoder
from radixmesh.services.detokenizer.vocabulary import Vocabulary

KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "sentencepiece": sentencepiece,
    "metaspace": metaspace,
    "wordpiece": wordpiece,
}
VOCABULARIES = {name: Vocabulary(make()) for name, make in KINDS.items()}
FAST = ("byte_level", "sentencepiece", "metaspace")

ids_and_cuts = st.lists(st.tuples(st.integers(0, 399), st.booleans()), max_size=40)


def run(decoder: Decoder, ids: Sequence[int], cuts: Sequence[bool] | None = None) -> str:
    """All text of `ids`, fed in pieces that end where `cuts` is true."""
    text, piece = "", []
    for position, token in enumerate(ids):
        piece.append(token)
        if cuts is None or cuts[position]:
            text += decoder.feed(piece)
            piece = []
    return text + decoder.feed(piece) + decoder.finish()


def known(vocabulary: Vocabulary, ids: Sequence[int]) -> list[int]:
    return [token for token in ids if vocabulary.spelling(token) is not None]


@pytest.mark.parametrize("kind", FAST)
def test_common_tokenizers_take_the_fast_path(kind: str) -> None:
    assert VOCABULARIES[kind].rule is not None


def test_neighbour_dependent_tokenizers_take_the_slow_path() -> None:
    assert VOCABULARIES["wordpiece"].rule is None


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(pairs=ids_and_cuts, tail=st.lists(st.integers(0, 399), max_size=4), skip=st.booleans())
def test_cuts_do_not_matter(kind: str, pairs: list[tuple[int, bool]], tail: list[int], skip: bool) -> None:
    vocabulary = VOCABULARIES[kind]
    ids, cuts = [token for token, _ in pairs], [cut for _, cut in pairs]
    one_by_one = run(vocabulary.decoder(tail, skip), ids)
    assert run(vocabulary.decoder(tail, skip), ids, cuts) == one_by_one


@settings(max_examples=150)
@given(
    ids=st.lists(st.integers(0, 400), max_size=40), tail=st.lists(st.integers(4, 400), max_size=6), skip=st.booleans()
)
def test_byte_level_is_exactly_decode(ids: list[int], tail: list[int], skip: bool) -> None:
    """Also where the bytes are no UTF-8: U+FFFD stands where `decode` has it."""
    tokenizer, vocabulary = byte_level(), VOCABULARIES["byte_level"]
    whole = tokenizer.decode(tail + ids, skip_special_tokens=skip)
    before = tokenizer.decode(tail, skip_special_tokens=skip)
    got = run(vocabulary.decoder(tail, skip), ids)
    assert whole.endswith(got)
    assert whole.startswith(before.rstrip(REPLACEMENT))
    if not before.endswith(REPLACEMENT):
        assert before + got == whole


@pytest.mark.parametrize("kind", ["sentencepiece", "metaspace"])
@settings(max_examples=150)
@given(
    ids=st.lists(st.integers(0, 330), max_size=30), tail=st.lists(st.integers(0, 330), max_size=6), skip=st.booleans()
)
def test_sentencepiece_is_exactly_decode_for_valid_text(kind: str, ids: list[int], tail: list[int], skip: bool) -> None:
    tokenizer, vocabulary = KINDS[kind](), VOCABULARIES[kind]
    whole = tokenizer.decode(tail + ids, skip_special_tokens=skip)
    before = tokenizer.decode(tail, skip_special_tokens=skip)
    if REPLACEMENT not in whole and REPLACEMENT not in before:
        assert before + run(vocabulary.decoder(tail, skip), ids) == whole


@settings(max_examples=100)
@given(text=st.text(max_size=30))
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_any_text_survives(kind: str, text: str) -> None:
    tokenizer, vocabulary = KINDS[kind](), VOCABULARIES[kind]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if REPLACEMENT not in (whole := tokenizer.decode(ids, skip_special_tokens=True)):
        assert run(vocabulary.decoder([], True), ids) == whole


def test_byte_fallback_keeps_valid_characters_around_broken_bytes() -> None:
    vocabulary = VOCABULARIES["sentencepiece"]
    data = "日".encode() + b"\xff" + "本".encode() + b"\xe6\x97"
    ids = [3 + byte for byte in data]
    assert run(vocabulary.decoder([259], True), ids) == data.decode("utf-8", "replace") == "日\ufffd本\ufffd"


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_nothing_incomplete_is_shown_before_the_end(kind: str) -> None:
    vocabulary, tokenizer = VOCABULARIES[kind], KINDS[kind]()
    ids = tokenizer.encode("🙂日", add_special_tokens=False).ids
    decoder = vocabulary.decoder(tokenizer.encode("text").ids, True)
    shown = [decoder.feed([token]) for token in ids[:-1]]
    assert REPLACEMENT not in "".join(shown)
    assert "".join(shown).strip() == "🙂"
    assert decoder.finish() == REPLACEMENT


def test_sentencepiece_spaces() -> None:
    tokenizer, vocabulary = sentencepiece(), VOCABULARIES["sentencepiece"]
    the, fox = (tokenizer.get_vocab()[token] for token in ("▁the", "▁fox"))
    assert run(vocabulary.decoder([the], True), [fox]) == " fox"
    assert run(vocabulary.decoder([1, the], True), [fox, the]) == " fox the"
    assert run(vocabulary.decoder([1], True), [fox, the]) == "fox the"
    assert run(vocabulary.decoder([], True), [fox, the]) == "fox the"


def test_special_tokens_are_shown_on_demand() -> None:
    tokenizer, vocabulary = byte_level(), VOCABULARIES["byte_level"]
    ids = [*tokenizer.encode("the fox").ids, 2]
    assert run(vocabulary.decoder([], True), ids) == "the fox"
    assert run(vocabulary.decoder([], False), ids) == "the fox<|im_end|>"


def test_added_tokens_are_text() -> None:
    vocabulary = VOCABULARIES["byte_level"]
    assert run(vocabulary.decoder([], True), [400]) == "<tool call｜>" == byte_level().decode([400])


def test_unknown_ids_have_no_text() -> None:
    for vocabulary in VOCABULARIES.values():
        assert run(vocabulary.decoder([1], True), [-5, 10**9, -1]) == ""


def test_configured_special_tokens_count_too() -> None:
    tokenizer = byte_level()
    assert not Vocabulary(tokenizer).is_special(400)
    assert Vocabulary(tokenizer, [400]).is_special(400)


@settings(max_examples=60)
@given(text=st.lists(st.sampled_from(["the", "quick", "foxes", "foxing", ".", "é"]), max_size=12))
def test_windows_give_decode(text: list[str]) -> None:
    tokenizer, vocabulary = wordpiece(), VOCABULARIES["wordpiece"]
    ids = tokenizer.encode(" ".join(text)).ids
    assert run(vocabulary.decoder([], True), ids) == tokenizer.decode(ids)
    if len(ids) > 3:
        got = run(vocabulary.decoder(ids[:3], True), ids[3:])
        assert tokenizer.decode(ids[:3]) + got == tokenizer.decode(ids)


@settings(max_examples=60)
@given(text=st.text(max_size=20))
def test_windows_agree_with_the_fast_path(text: str) -> None:
    tokenizer, vocabulary = byte_level(), VOCABULARIES["byte_level"]
    ids = tokenizer.encode(text).ids
    assert run(WindowDecoder(lambda some: vocabulary.decode(some, True), []), ids) == text


def test_windows_do_not_wait_for_ever() -> None:
    """A real U+FFFD, or endless broken bytes, must not stall the text."""
    broken = next(token for token in range(400) if byte_level().id_to_token(token) == "ÿ")
    decoder = WindowDecoder(lambda some: VOCABULARIES["byte_level"].decode(some, True), [])
    assert len("".join(decoder.feed([broken]) for _ in range(100))) > 80


def test_an_unexpected_decoder_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """The description says one thing and the tokenizer does another: then windows are used."""

    class Odd:
        def __getattr__(self, name: str) -> object:
            return getattr(byte_level(), name)

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return byte_level().decode(ids, skip_special_tokens=skip_special_tokens).upper()

    assert Vocabulary(Odd()).rule is None  # type: ignore[arg-type]
    assert "windows" in caplog.text


@pytest.mark.parametrize(
    "decoder",
    [
        decoders.Sequence([decoders.Strip(" ", 1, 0), decoders.Fuse()]),
        decoders.Sequence([decoders.Fuse(), decoders.Replace("a", "b")]),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 2, 0)]),
        decoders.CTC(),
        None,
    ],
)
def test_decoders_that_join_tokens_have_no_byte_rule(decoder: decoders.Decoder | None) -> None:
    tokenizer = Tokenizer.from_str(sentencepiece().to_str())
    tokenizer.decoder = decoder
    assert Vocabulary(tokenizer).rule is None


def test_python_cuts_bad_utf8_as_tokenizers_does() -> None:
    """The premise of the fast path: one U+FFFD per maximal invalid part, incrementally too."""
    data = b"a\xe4\xb8b\xf0\x9f\x92\xff\xc3\xed\xa0\x80z\xf0\x80\x80"
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [decoder.decode(data[i : i + 1]) for i in range(len(data))]
    assert "".join(pieces) + decoder.decode(b"", final=True) == data.decode("utf-8", "replace")
