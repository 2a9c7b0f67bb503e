"""What people see."""

import io
import json
import shlex
from pathlib import Path

import pytest

from radixmesh.cli.serve.display.progress import Progress
from radixmesh.cli.serve.display.terminal import Banner, Terminal
from radixmesh.shared.messages import Presence, State
from radixmesh.shared.presence.view import PresenceView


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def banner(**changes: object) -> Banner:
    values = {
        "model": "llama",
        "urls": ["http://127.0.0.1:8000"],
        "grpc": ["127.0.0.1:50051"],
        "chat": True,
        "api_key": False,
        "key_in_shell": False,
        "logs": Path("/logs"),
        "seconds": 1.0,
    }
    return Banner(**{**values, **changes})  # type: ignore[arg-type]


def body(curl: str) -> dict[str, object]:
    words = shlex.split(curl)
    content: dict[str, object] = json.loads(words[words.index("-d") + 1])
    return content


def test_the_curl_line_is_one_a_shell_understands() -> None:
    curl = banner(model='it\'s "odd" – $HOME').curl()
    assert shlex.split(curl)[:2] == ["curl", "http://127.0.0.1:8000/v1/chat/completions"]
    assert body(curl)["model"] == 'it\'s "odd" – $HOME'


def test_without_a_chat_template_the_curl_line_completes_text() -> None:
    curl = banner(chat=False).curl()
    assert "/v1/completions" in curl
    assert "prompt" in body(curl)


def test_with_an_api_key_the_curl_line_takes_it_from_the_environment() -> None:
    assert '-H "Authorization: Bearer $RADIXMESH_API_KEY"' in banner(api_key=True).curl()


def test_a_key_that_the_shell_does_not_have_is_asked_for_before_the_curl_line() -> None:
    lines = [line.strip() for line in str(banner(api_key=True)).splitlines() if line]
    assert lines[-3:-1] == ["Try, with your API key for KEY:", "export RADIXMESH_API_KEY=KEY"]
    assert lines[-1].startswith("curl ")
    for other in (banner(), banner(api_key=True, key_in_shell=True)):
        assert "export" not in str(other)


def test_the_banner_says_where_everything_is() -> None:
    text = str(banner())
    assert all(part in text for part in ("llama", "http://127.0.0.1:8000", "127.0.0.1:50051", "/logs", "Ctrl-C"))


def test_lines_go_above_the_bar() -> None:
    screen = Screen()
    terminal = Terminal(screen)
    terminal.bar(0.5, "loading")
    terminal.say("a line")
    terminal.no_bar()
    assert screen.getvalue().count("50% |") == 2
    assert screen.getvalue().endswith("\r\033[K")
    assert "\r\033[Ka line\n" in screen.getvalue()


def test_no_bar_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.bar(0.5, "loading")
    terminal.say("a line")
    assert stream.getvalue() == "a line\n"


def test_a_stream_that_is_gone_is_no_failure() -> None:
    terminal = Terminal(Closed())
    terminal.say("a line")
    terminal.no_bar()


def worker(instance: str, progress: float, doing: str, state: State = State.STARTING) -> Presence:
    return Presence(
        service="model_worker",
        instance=instance,
        epoch=1,
        state=state,
        attributes={"progress": progress, "loading": doing},
    )


def test_progress_is_the_mean_of_the_workers_and_tells_of_the_slowest() -> None:
    screen, members = Screen(), PresenceView()
    Progress(Terminal(screen), members, ["a", "b"])
    members.update(worker("a", 1.0, "", State.READY))
    members.update(worker("b", 0.5, "loading weights"))
    assert screen.getvalue().endswith("| loading weights")
    assert " 75% |" in screen.getvalue()


@pytest.mark.parametrize("bad", ["nonsense", None, 7, float("nan"), -1])
def test_odd_progress_does_no_harm(bad: object) -> None:
    screen, members = Screen(), PresenceView()
    Progress(Terminal(screen), members, ["a"])
    members.update(
        Presence(service="model_worker", instance="a", epoch=1, state=State.STARTING, attributes={"progress": bad})
    )
    assert "loading the model" in screen.getvalue()


def test_without_a_terminal_progress_is_a_line_now_and_then() -> None:
    stream, members = io.StringIO(), PresenceView()
    progress = Progress(Terminal(stream), members, ["a"])
    for i in range(101):
        members.update(worker("a", i / 100, "loading weights"))
    members.update(worker("a", 1.0, "", State.READY))
    progress.close()
    members.update(worker("a", 0.0, "loading weights"))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "a: loading weights (0%)"
    assert lines[-1] == "a: model is loaded (100%)"
    assert len(lines) == 6
