"""Processes that live and die together, with small real ones."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from radixmesh.cli.serve.children.process import describe, level_of
from radixmesh.cli.serve.planning.plan import ProcessSpec, UnitSpec
from radixmesh.cli.serve.supervision.backoff import Backoff
from radixmesh.cli.serve.supervision.unit import HopelessError, Unit, UnitContext


class Home:
    """A supervisor that only takes notes."""

    def __init__(self, log_dir: Path) -> None:
        self.said: list[str] = []
        self.shown: list[tuple[str, int, str]] = []
        self.gone: list[str] = []
        self.up: float | None = None
        self.sees = False
        self.context = UnitContext(
            log_dir=log_dir,
            environ={"PATH": "/usr/bin:/bin"},
            show=self._show,
            say=self.said.append,
            changed=lambda: None,
            died=self._died,
            up_for=lambda _spec, _age: self.up,
        )

    def _show(self, name: str, level: int, line: str) -> bool:
        self.shown.append((name, level, line))
        return self.sees

    async def _died(self, spec: ProcessSpec) -> None:
        self.gone.append(spec.instance)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def python(code: str, instance: str = "one", service: str = "tokenizer") -> ProcessSpec:
    return ProcessSpec(service, instance, (sys.executable, "-c", code))


def shell(code: str, instance: str = "one", service: str = "tokenizer") -> ProcessSpec:
    return ProcessSpec(service, instance, ("/bin/sh", "-c", code))


@asynccontextmanager
async def kept(home: Home, *processes: ProcessSpec) -> AsyncIterator[Unit]:
    unit = Unit(UnitSpec("unit", processes), home.context, Backoff(first=0.01))
    task = asyncio.create_task(unit.run())
    try:
        yield unit
    finally:
        unit.stop(signal.SIGKILL)
        with contextlib.suppress(HopelessError):
            await asyncio.wait_for(task, 20)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  the condition is about other processes
            await asyncio.sleep(0.01)


def pids(unit: Unit) -> list[int]:
    return [item.process.pid for item in unit.running]


async def test_one_that_dies_is_started_again_and_the_mesh_is_told(home: Home) -> None:
    home.up = 1.0
    async with kept(home, shell("echo about to sleep; exec sleep 60")) as unit:
        await until(lambda: home.shown)
        (first,) = pids(unit)
        psutil.Process(first).kill()
        await until(lambda: unit.running and pids(unit) != [first])
        assert home.gone == ["one"]
        assert home.said[0].startswith("one was killed by SIGKILL")
        assert "about to sleep" in home.said[0]


async def test_one_dead_rank_takes_its_group_down(home: Home) -> None:
    home.up = 1.0
    async with kept(home, *(shell("exec sleep 60", name, "model_worker") for name in ("a", "b"))) as unit:
        await until(lambda: len(unit.running) == 2)
        before = pids(unit)
        psutil.Process(before[1]).kill()
        await until(lambda: len(unit.running) == 2 and not set(pids(unit)) & set(before))
        assert not psutil.pid_exists(before[0])
        assert home.gone == ["a", "b"]
        assert "with its group of 2" in home.said[0]


async def test_ranks_are_told_a_new_place_to_meet_at_each_start(home: Home) -> None:
    home.up = 1.0
    code = "import sys, time; print(sys.argv[-1], flush=True); time.sleep(60)"
    async with kept(home, *(python(code, name, "model_worker") for name in ("a", "b"))) as unit:
        await until(lambda: len(home.shown) == 2)
        psutil.Process(pids(unit)[0]).kill()
        await until(lambda: len(home.shown) == 4)
    places = [line for _, _, line in home.shown]
    assert all(place.startswith("--dist-init=tcp://127.0.0.1:") for place in places)
    assert places[0] == places[1]
    assert places[2] == places[3]


async def test_what_never_was_ready_is_given_up_with_its_last_words(home: Home) -> None:
    unit = Unit(UnitSpec("u", (shell("echo no such file; exit 1"),)), home.context, Backoff(first=0.01))
    with pytest.raises(HopelessError, match=r"one exited with 1, 3 times in a row.*\n.*no such file"):
        await asyncio.wait_for(unit.run(), 20)


async def test_last_words_that_people_have_seen_are_not_repeated(home: Home) -> None:
    home.sees = True
    unit = Unit(UnitSpec("u", (shell("echo --bad-flag; exit 2"),)), home.context)
    with pytest.raises(HopelessError) as caught:
        await asyncio.wait_for(unit.run(), 20)
    assert str(caught.value) == "one exited with 2 before it was ready; what it said is above"


async def test_silence_is_told_too(home: Home) -> None:
    unit = Unit(UnitSpec("u", (shell("exit 2"),)), home.context)
    with pytest.raises(HopelessError, match="one exited with 2 before it was ready, and said nothing"):
        await asyncio.wait_for(unit.run(), 20)


async def test_wrong_settings_are_given_up_at_once(home: Home) -> None:
    unit = Unit(UnitSpec("u", (shell("echo --bad-flag; exit 2"),)), home.context)
    with pytest.raises(HopelessError, match=r"one exited with 2 before it was ready.*\n.*--bad-flag"):
        await asyncio.wait_for(unit.run(), 20)
    assert home.gone == ["one"]


async def test_a_command_that_does_not_exist(home: Home) -> None:
    unit = Unit(UnitSpec("u", (ProcessSpec("nats", "one", ("/no/such/binary",)),)), home.context)
    with pytest.raises(FileNotFoundError):
        await unit.run()


async def test_stop_ends_the_processes_in_order(home: Home) -> None:
    code = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    unit = Unit(UnitSpec("u", (shell(code),)), home.context)
    task = asyncio.create_task(unit.run())
    await until(lambda: home.shown)
    unit.stop()
    await asyncio.wait_for(task, 20)
    assert [line for _, _, line in home.shown] == ["up", "bye"]
    assert home.gone == []  # it could tell of its end by itself
    assert home.said == []


async def test_stop_during_the_wait_before_a_restart(home: Home) -> None:
    unit = Unit(UnitSpec("u", (shell("exit 1"),)), home.context, Backoff(first=600.0, longest=600.0))
    task = asyncio.create_task(unit.run())
    await until(lambda: home.said)
    unit.stop()
    await asyncio.wait_for(task, 20)


async def test_what_a_process_leaves_behind_is_killed(home: Home) -> None:
    home.up = 1.0
    async with kept(home, shell("sleep 60 & echo $!; wait")) as unit:
        await until(lambda: home.shown)
        grandchild = int(home.shown[0][2])
        psutil.Process(pids(unit)[0]).kill()
        await until(lambda: not psutil.pid_exists(grandchild))


async def test_output_goes_to_a_log_file_whatever_it_is(home: Home, tmp_path: Path) -> None:
    code = "import os; os.write(1, b'caf\\xe9\\n' + b'x' * 3_000_000 + b'\\nlast\\n'); import time; time.sleep(60)"
    async with kept(home, python(code)):
        await until(lambda: home.shown and home.shown[-1][2] == "last")
    log = (tmp_path / "one.log").read_text(encoding="utf-8")
    assert log.startswith("caf�\n")
    assert "(a line too long to keep)\n" in log
    assert log.endswith("last\n")


async def test_logs_that_were_removed_are_made_anew(home: Home) -> None:
    home.context = dataclasses.replace(home.context, log_dir=home.context.log_dir / "logs")
    log = home.context.log_dir / "one.log"
    async with kept(home, shell("echo a; read -r _ < $0.go; echo b; exec sleep 60".replace("$0", str(log.parent)))):
        os.mkfifo(f"{log.parent}.go")
        await until(lambda: home.shown)
        shutil.rmtree(log.parent)
        await asyncio.to_thread(Path(f"{log.parent}.go").write_text, "go\n")
        await until(lambda: len(home.shown) == 2)
        await until(log.exists)
    assert log.read_text() == "b\n"


async def test_a_log_that_cannot_be_written_costs_a_line(home: Home) -> None:
    blocked = home.context.log_dir / "file"
    blocked.write_text("")
    home.context = dataclasses.replace(home.context, log_dir=blocked)
    async with kept(home, shell("echo a; echo b; exec sleep 60")):
        await until(lambda: len(home.shown) == 3)
    lines = [line for _, _, line in home.shown]
    assert [line for line in lines if not line.startswith("(the log ")] == ["a", "b"]


@dataclasses.dataclass(frozen=True)
class Moody(UnitSpec):
    """Needs a file that can be written for each start."""

    needs: Path

    def commands(self, dist_port: int | None) -> list[ProcessSpec]:
        self.needs.write_text("")
        return super().commands(dist_port)


async def test_a_start_that_fails_is_tried_again_once_it_has_served(home: Home, tmp_path: Path) -> None:
    home.up = 1.0
    folder = tmp_path / "folder"
    unit = Unit(Moody("moody", (shell("exec sleep 60"),), folder / "file"), home.context, Backoff(first=0.01))
    with pytest.raises(FileNotFoundError):
        await asyncio.wait_for(unit.run(), 20)
    folder.mkdir()
    task = asyncio.create_task(unit.run())
    await until(lambda: unit.running)
    shutil.rmtree(folder)
    psutil.Process(pids(unit)[0]).kill()
    await until(lambda: any("moody cannot be started: " in text for text in home.said))
    folder.mkdir()
    await until(lambda: unit.running)
    unit.stop(signal.SIGKILL)
    await asyncio.wait_for(task, 20)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("12:00:01 INFO    gateway-0: up", "INFO"),
        ("12:00:01 WARNING gateway-0: hm", "WARNING"),
        ("12:00:01 ERROR   gateway-0: oh", "ERROR"),
        ("[123] 2026/01/02 03:04:05.678 [INF] Server is ready", "INFO"),
        ("[123] 2026/01/02 03:04:05.678 [ERR] oh", "ERROR"),
        ("[123] 2026/01/02 03:04:05.678 [FTL] oh no", "CRITICAL"),
        ("Traceback (most recent call last):", "ERROR"),
    ],
)
def test_levels_are_read_off_the_lines(line: str, level: str) -> None:
    assert level_of(line, logging.ERROR) == getattr(logging, level)


def test_exit_statuses_in_words() -> None:
    assert describe(0) == "exited with 0"
    assert describe(-15) == "was killed by SIGTERM"
    assert "memory" in describe(-9)
