"""Incremental text equals the whole text, however the tokens come."""

import codecs
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from radixmesh.services.detokenizer import vocabulary as vocabulary_module
from radixmesh.services.detokenizer.incremental import REPLACEMENT, Decoder
from radixmesh.services.detokenizer.vocabulary import Vocabulary
from tests.tokenizer.small_tokenizers import byte_level, metaspace, sentencepiece, wordpiece

KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "sentencepiece": sentencepiece,
    "metaspace": metaspace,
    "wordpiece": wordpiece,
}
VOCABULARIES = {name: Vocabulary(make()) for name, make in KINDS.items()}
FAST = ("byte_level", "sentencepiece", "metaspace")

ids_and_cuts = st.lists(st.tuples(st.integers(0, 399), st.booleans()), max_size=40)


def run(decoder: Decoder, ids: Sequence[int], cuts: Sequence[bool] | int = 1) -> str:
    """All text of `ids`, fed in pieces that end where `cuts` is true, or of so many tokens."""
    text, piece = "", []
    for position, token in enumerate(ids):
        piece.append(token)
        if len(piece) == cuts if isinstance(cuts, int) else cuts[position]:
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


@pytest.mark.parametrize("windowed", [False, True])
@settings(max_examples=150)
@given(
    ids=st.lists(st.integers(0, 400), max_size=40), tail=st.lists(st.integers(4, 400), max_size=6), skip=st.booleans()
)
def test_byte_level_is_exactly_decode(windowed: bool, ids: list[int], tail: list[int], skip: bool) -> None:
    """Also where the bytes are no UTF-8: U+FFFD stands where `decode` has it."""
    vocabulary = FORMS["byte level and more" if windowed else "byte_level"]
    whole, before = vocabulary.decode(tail + ids, skip), vocabulary.decode(tail, skip)
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


# -- decoders that no byte rule describes --


def decoded_by(decoder: decoders.Decoder | None, base: Callable[[], Tokenizer] = sentencepiece) -> Tokenizer:
    """The tokenizer of `base`, with another decoder."""
    tokenizer = Tokenizer.from_str(base().to_str())
    tokenizer.decoder = decoder
    return tokenizer


def suffixed() -> Tokenizer:
    """The kind that marks the ends of words."""
    words = ["the</w>", "qu", "ick</w>", "fox</w>", "é", "日</w>"]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    tokenizer.decoder = decoders.BPEDecoder()
    return tokenizer


WINDOWED: dict[str, Tokenizer] = {
    "two leading spaces": decoded_by(
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 2, 0)]
        )
    ),
    "fallback and metaspace": decoded_by(decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])),
    "fallback, fused first": decoded_by(
        decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " ")])
    ),
    "fallback alone, nested": decoded_by(
        decoders.Sequence([decoders.Sequence([decoders.ByteFallback()]), decoders.Strip("_", 1, 0)])
    ),
    "byte level and more": decoded_by(decoders.Sequence([decoders.ByteLevel(), decoders.Strip("#", 1, 0)]), byte_level),
    "wordpiece": wordpiece(),
    "suffixes": suffixed(),
    "repetitions": decoded_by(decoders.CTC(pad_token="<s>", word_delimiter_token="▁"), byte_level),
    "none": decoded_by(None),
}
FORMS = {**VOCABULARIES, **{name: Vocabulary(tokenizer) for name, tokenizer in WINDOWED.items()}}
WITH_BYTES = [name for name in FORMS if name not in ("wordpiece", "suffixes", "repetitions", "none", "metaspace")]


@pytest.mark.parametrize("form", WINDOWED)
def test_these_are_decoded_by_windows(form: str) -> None:
    assert FORMS[form].rule is None


@pytest.mark.parametrize("form", ["wordpiece", "suffixes", "repetitions", "none"])
@settings(max_examples=150)
@given(ids=st.lists(st.integers(0, 12), max_size=30), split=st.integers(0, 20), skip=st.booleans())
def test_forms_without_bytes_are_exactly_decode(form: str, ids: list[int], split: int, skip: bool) -> None:
    vocabulary = FORMS[form]
    whole, before = vocabulary.decode(ids, skip), vocabulary.decode(ids[:split], skip)
    assert run(vocabulary.decoder(ids[:split], skip), ids[split:]) == whole.removeprefix(before)


TEXTS = st.lists(
    st.one_of(st.text(max_size=6), st.sampled_from(["the quick", "  fox", "日本語", "🙂🙂🙂", "é" * 9, "\ufffd", "▁"])),
    max_size=5,
).map("".join)


@pytest.mark.parametrize("form", WITH_BYTES)
@settings(max_examples=120)
@given(asked=TEXTS, said=TEXTS, skip=st.booleans(), size=st.integers(1, 4))
def test_every_form_gives_valid_text_as_it_is(form: str, asked: str, said: str, skip: bool, size: int) -> None:
    """Behind any prompt, however far the tail of it that is known reaches back into a character."""
    vocabulary, tokenizer = FORMS[form], (byte_level() if "byte" in form else sentencepiece())
    prompt, answer = (tokenizer.encode(text, add_special_tokens=False).ids for text in (asked, said))
    before, whole = vocabulary.decode(prompt, skip), vocabulary.decode(prompt + answer, skip)
    assert whole.startswith(before)
    assert run(vocabulary.decoder(prompt, skip), answer, size) == whole[len(before) :]
    if before.strip():
        assert run(vocabulary.decoder(prompt[-16:], skip), answer, size) == whole[len(before) :]


def bytes_of(form: str, data: bytes) -> list[int]:
    """One token a byte."""
    if "byte level" not in form and form != "byte_level":
        return [3 + byte for byte in data]
    alphabet = {byte: char for char, byte in vocabulary_module._ALPHABET.items()}
    ids = [byte_level().token_to_id(alphabet[byte]) for byte in data]
    return [token for token in ids if token is not None]


def open_end(data: bytes) -> bytes:
    """The character at the end of `data` that is not complete."""
    for size in (3, 2, 1):
        try:
            data[-size:].decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and error.start == 0:
                return data[-size:]
    return b""


BROKEN = st.lists(
    st.one_of(
        st.binary(max_size=3),
        st.sampled_from(["日".encode(), "🙂".encode(), "é".encode(), b"ab", b"\xff"]),
        st.sampled_from([b"\xe6\x97", b"\xf0\x9f\x99", b"\xed\xa0", b"\xed\xa0\x80"]),
    ),
    max_size=12,
).map(lambda parts: b"x" + b"".join(parts))  # not at the very start, where some decoders drop characters


@pytest.mark.parametrize("form", WITH_BYTES)
@settings(max_examples=120)
@given(
    data=BROKEN,
    split=st.integers(0, 40),
    size=st.integers(1, 4),
)
def test_every_form_keeps_valid_characters_among_broken_bytes(form: str, data: bytes, split: int, size: int) -> None:
    """One U+FFFD for each maximal invalid part; but none for one that the prompt began."""
    vocabulary, ids = FORMS[form], bytes_of(form, data)
    whole = data.decode("utf-8", "replace")
    assert run(vocabulary.decoder([], True), ids, size) == whole
    opened = open_end(data[:split])
    whole_part = data[: len(data[:split]) - len(opened)]
    answer = whole[len(whole_part.decode("utf-8", "replace")) :]
    if opened and answer.startswith(REPLACEMENT) and not data.startswith(b"\xef\xbf\xbd", len(whole_part)):
        answer = answer[1:]
    assert run(vocabulary.decoder(ids[:split], True), ids[split:], size) == answer


@pytest.mark.parametrize("form", WITH_BYTES)
def test_a_prompt_that_ends_inside_of_a_character(form: str) -> None:
    vocabulary = FORMS[form]
    first, second = bytes_of(form, "日".encode()), bytes_of(form, "本".encode())
    for known in (1, 2):
        tail = [*bytes_of(form, b"ab"), *second, *first[:known]]
        assert run(vocabulary.decoder(tail, True), [*first[known:], *second]) == "日本"
        assert run(vocabulary.decoder(tail, True), second) == "本"
        assert run(vocabulary.decoder(tail, True), bytes_of(form, b"a\xff")) == "a" + REPLACEMENT
        assert run(vocabulary.decoder(tail, True), [2, *second]) == "本"
        assert run(vocabulary.decoder(tail, True), []) == ""
    assert run(vocabulary.decoder(first[:1], True), first[1:2]) == ""
    assert run(vocabulary.decoder(bytes_of(form, b"x\xed\xa0"), True), []) == ""  # a surrogate, which ends nowhere
    assert run(vocabulary.decoder(first[:1], True), [first[1], *bytes_of(form, b"x")]) == "x"


@pytest.mark.parametrize("form", WITH_BYTES)
def test_a_character_as_long_as_a_window_and_longer(form: str) -> None:
    """Every border of a window falls somewhere into a character of four bytes."""
    text = "🙂日é" * 40
    ids = bytes_of(form, text.encode())
    assert run(FORMS[form].decoder([], True), ids) == text
    for start in range(1, 12):
        whole = text.encode()[start + 16 :].decode("utf-8", "ignore")
        assert run(FORMS[form].decoder(ids[start : start + 16], True), ids[start + 16 :]).endswith(whole)


def test_hidden_tokens_do_not_use_up_a_window() -> None:
    vocabulary = FORMS["wordpiece"]
    fox, quick = (wordpiece().token_to_id(word) for word in ("fox", "quick"))
    hidden = Vocabulary(wordpiece(), [0])
    assert run(hidden.decoder([], True), [fox, *[0] * 20, quick]) == "fox quick"
    assert run(vocabulary.decoder([], True), [fox, *[10**6] * 20, quick]) == "fox quick"


def test_a_real_replacement_character_is_shown_at_once() -> None:
    for form in WITH_BYTES:
        decoder = FORMS[form].decoder([], True)
        assert decoder.feed(bytes_of(form, f"a{REPLACEMENT}".encode())) == f"a{REPLACEMENT}"


@pytest.mark.parametrize("form", WITH_BYTES)
def test_broken_bytes_do_not_wait_for_ever(form: str) -> None:
    decoder, (broken,) = FORMS[form].decoder([], True), bytes_of(form, b"\xff")
    assert "".join(decoder.feed([broken]) for _ in range(100)) == REPLACEMENT * 100


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
