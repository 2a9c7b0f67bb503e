"""Stop strings against a model that looks at the whole text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.detokenizer.stop import Piece, StopScan, stop_set


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
        scanned = scanner.feed(piece)
        out += text_of(scanned.pieces)
        if scanned.stop is not None:
            return out, scanned.stop
    return out + text_of(scanner.flush()), None


def text_of(pieces: list[Piece]) -> str:
    return "".join(text for text, _ in pieces)


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
    scanned = scanner.feed(text)
    if scanned.stop is None:
        held = text[len(text_of(scanned.pieces)) :]
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


def test_what_follows_a_match_is_told() -> None:
    scanner = StopScan(stop_set(("</t>",)))
    assert scanner.feed("a</") == ([Piece("a", True)], None, "")
    assert scanner.feed("t> b") == ([], "</t>", " b")


@settings(max_examples=300)
@given(
    pieces=st.lists(st.tuples(small_text, st.booleans()), max_size=8),
    stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), min_size=1, max_size=4),
)
def test_hidden_text_takes_part_and_stays_hidden(pieces: list[tuple[str, bool]], stops: list[str]) -> None:
    scanner, out, found = StopScan(stop_set(tuple(stops))), list[Piece](), None
    for text, shown in pieces:
        scanned = scanner.feed(text, shown)
        out += scanned.pieces
        if (found := scanned.stop) is not None:
            break
    else:
        out += scanner.flush()
    assert (text_of(out), found) == naive("".join(text for text, _ in pieces), stops)
    flags = [shown for text, shown in pieces for _ in text]
    assert [shown for text, shown in out for _ in text] == flags[: len(text_of(out))]
