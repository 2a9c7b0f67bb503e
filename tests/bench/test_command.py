"""The whole program: its output, its JSON, its exit codes."""

import argparse
import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from radixmesh.bench.command import USAGE, add_arguments, run
from radixmesh.bench.settings import BenchError, Settings

if TYPE_CHECKING:
    from tests.bench.conftest import FakeServer


async def start(*args: str, wrapper: tuple[str, ...] = ()) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(*wrapper, sys.executable, "-m", "radixmesh.bench", *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "RADIXMESH_API_KEY": "hidden"},
    )


async def bench(*args: str) -> tuple[int | None, str, str]:
    process = await start(*args)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


def parse(*args: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(args)


async def test_table_and_json(server: "FakeServer", tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    code, out, err = await bench(
        *("--url", f"{server.url}/v1/", "--requests", "4", "--concurrency", "2", "--repeats", "3"),
        *("--input-len", "8", "--output-len", "5", "--json", str(file), "--json-requests"),
    )
    assert (code, err) == (0, "")
    assert f"{server.url}/v1/completions  tiny" in out
    assert "4 requests, 2 at a time, 8 tokens in, 5 tokens out, seed 0" in out
    assert out.count("4 completed, 0 failed") == 3
    assert out.count("32 in (cached: unknown), 20 out") == 3
    for label in ("TTFT", "TPOT", "ITL", "E2E", "client", "3 runs", "output tok/s", "CPU client, ms/token"):
        assert f"\n{label} " in out
    document = json.loads(file.read_text())
    assert (document["config"]["model"], document["config"]["vocab_size"]) == ("tiny", 1000)
    assert document["config"]["requests"] == 4
    assert "hidden" not in file.read_text()
    assert server.headers[0]["Authorization"] == "Bearer hidden"
    assert len(document["runs"]) == 3
    assert document["runs"][0]["completed"] == 4
    assert [request["output_tokens"] for request in document["runs"][2]["requests"]] == [5] * 4
    rates = [one["output_tokens_per_s"] for one in document["runs"]]
    spread = document["over_runs"]["output_tokens_per_s"]
    assert (spread["min"], spread["median"], spread["max"]) == tuple(sorted(rates))


async def test_notes_and_exit_code_of_failures(server: "FakeServer") -> None:
    server.fail_every, server.shorten, server.cached = 2, 1, 8
    code, out, _ = await bench(
        *("--url", server.url, "--requests", "4", "--concurrency", "1", "--warmup", "0", "--input-len", "8")
    )
    assert code == 1
    assert "2 completed, 2 failed" in out
    assert "error: 2 x HTTP 503: no such luck" in out
    assert "note: 2 answers are not as long as asked for" in out
    assert "note: the server had these prompts in its prefix cache" in out


async def test_ctrl_c_prints_what_there_is(server: "FakeServer", tmp_path: Path) -> None:
    server.delay, file = 0.01, tmp_path / "out.json"
    process = await start("--url", server.url, "--requests", "5000", "--output-len", "5", "--json", str(file))
    await server.requests(100)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err) == (130, b"")
    cancelled = re.search(rb"(\d+) cancelled", out)  # of the 32 in flight, some may just have been at their end
    assert cancelled is not None
    assert 0 < int(cancelled[1]) <= 32
    assert json.loads(file.read_text())["runs"][0]["completed"] > 0


async def test_a_ctrl_c_that_was_ignored_stays_so(server: "FakeServer") -> None:
    """As a shell's `&` leaves it."""
    server.delay = 0.01
    wrapper = ("/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    process = await start("--url", server.url, "--requests", "200", "--output-len", "5", wrapper=wrapper)
    await server.requests(100)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err) == (0, b"")
    assert b"200 completed" in out


def test_a_key_from_a_file_is_sent_without_its_newline() -> None:
    assert Settings.from_args(parse("--url", "http://h", "--api-key", "hush\n")).api_key == "hush"
    with pytest.raises(BenchError, match="--api-key has characters"):
        Settings.from_args(parse("--url", "http://h", "--api-key", "hu\nsh"))


async def test_no_server(unused_tcp_port: int) -> None:
    code, out, err = await bench("--url", f"http://127.0.0.1:{unused_tcp_port}")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert f"cannot connect to 127.0.0.1:{unused_tcp_port}" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--url", "localhost:8000"], "--url must read like http"),
        (["--url", "http://"], "--url must read like http"),
        (["--url", "http://[::1"], "--url must read like http"),
        (["--url", "http://a:99999"], "--url must read like http"),
        (["--url", "https://a b"], "--url must read like http"),
        (["--endpoint", "chat", "--prompt", "ids"], "chat messages are text"),
        (["--json-requests"], "needs --json"),
        (["--json", "/no/such/folder/out.json"], "--json: no folder /no/such/folder"),
        (["--warm-prefixes"], "needs --shared-prefix-len"),
        (["--input-len-range", "9", "8"], "--input-len-range: 9 is more than 8"),
        (["--pid-cpu", "a=1", "--pid-cpu", "a=2"], "its own name"),
    ],
)
def test_flags_that_contradict(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse(*args)) == USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--requests", "0"], "'0' is not a whole number of at least 1"),
        (["--requests", "x"], "'x' is not a whole number of at least 1"),
        (["--request-rate", "0"], "'0' is not a number above 0"),
        (["--temperature", "-1"], "'-1' is not a number of at least 0"),
        (["--timeout", "nan"], "'nan' is not a number above 0"),
        (["--concurrency", "4", "--request-rate", "2"], "not allowed with"),
        (["--pid-cpu", "worker"], "'worker' is not NAME=PID"),
        (["--extra-body", "{"], "not JSON"),
        (["--extra-body", "[1]"], "not a JSON object"),
    ],
)
def test_values_that_are_wrong(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse(*args)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_settings_from_flags() -> None:
    settings = Settings.from_args(
        parse("--request-rate", "4", "--input-len-range", "5", "9", "--pid-cpu", "a b=12", "--api-key", "k")
    )
    assert (settings.concurrency, settings.request_rate) == (None, 4.0)
    assert (settings.input_len, settings.output_len) == ((5, 9), (64, 64))
    assert settings.pid_cpu == (("a b", 12),)
    assert settings.prompt == "ids"
    assert "api_key" not in settings.to_json()
    assert "'k'" not in repr(settings)
    assert Settings.from_args(parse("--endpoint", "chat")).prompt == "text"
    with pytest.raises(BenchError):
        Settings.from_args(parse("--url", "ftp://host"))
