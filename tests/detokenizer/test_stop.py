"""Stop strings against a model that looks at the whole text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.detokenizer.stop import StopScan, stop_set


def naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The match that is complete first, of those the longest; and the text before it."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


def scan(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    scanner, out = StopScan(stop_set(tuple(stops))), ""
    for piece in pieces:
        part, stop = scanner.feed(piece)
        out += part
        if stop is not None:
            return out, stop
    return out + scanner.flush(), None


small_text = st.text(alphabet="ab\n", max_size=8)


@settings(max_examples=400)
@given(
    pieces=st.lists(small_text, max_size=8),
    stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), min_size=1, max_size=4),
)
def test_any_cut_gives_the_naive_answer(pieces: list[str], stops: list[str]) -> None:
    assert scan(pieces, stops) == naive("".join(pieces), stops)


@settings(max_examples=200)
@given(
    text=st.text(alphabet="ab", max_size=20),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=6), min_size=1),
)
def test_exactly_what_may_become_a_stop_string_is_held(text: str, stops: list[str]) -> None:
    scanner = StopScan(stop_set(tuple(stops)))
    out, stop = scanner.feed(text)
    if stop is None:
        held = text[len(out) :]
        starts = {stop[:n] for stop in stops for n in range(len(stop))}
        assert held == max((end for end in starts if text.endswith(end)), key=len)


def test_examples() -> None:
    assert scan(["hello", " wor", "ld STO", "P more"], ["STOP"]) == ("hello world ", "STOP")
    assert scan(["ab"], ["abc", "b"]) == ("a", "b")
    assert scan(["xabc"], ["bc", "abc"]) == ("x", "abc")
    assert scan(["aab", "aac"], ["aac"]) == ("aab", "aac")
    assert scan(["a\n", "\nb"], ["\n\n"]) == ("a", "\n\n")
    assert scan(["a\n", "b"], ["\n\n"]) == ("a\nb", None)
    assert scan(["🙂", "é"], ["é"]) == ("🙂", "é")


def test_empty_stop_strings_never_match() -> None:
    assert scan(["abc"], ["", "c"]) == ("ab", "c")


def test_long_stop_strings_and_text_are_linear() -> None:
    stop = "a" * 20_000 + "b"
    out, found = scan(["a" * 50_000, "a" * 50_000, "b"], [stop])
    assert (len(out), found) == (80_000, stop)
