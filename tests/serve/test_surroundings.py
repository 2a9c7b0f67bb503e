"""`radixmesh serve` where nothing is as one would wish: the folder, the environment, the user, the temporary files."""

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import openai
import pytest

from radixmesh.services.model_worker.devices.cpu.native import native
from tests.serving import ServeProcess, wait_for

SMALL = ("--dtype", "float32", "--max-model-len", "256", "--max-slots", "4", "--threads", "1")
SERVICES = ("gateway", "tokenizer", "scheduler", "model_worker", "detokenizer")
STRANGER = 12345
"""A uid that the system does not know."""


def complete(mesh: ServeProcess, api_key: str = "none") -> str:
    with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key=api_key, timeout=60, max_retries=0) as client:
        answer = client.completions.create(
            model=mesh.model, prompt="Once", max_tokens=4, temperature=0, extra_body={"ignore_eos": True}
        )
    return answer.choices[0].text


def answers(mesh: ServeProcess) -> bool:
    try:
        return bool(complete(mesh))
    except (openai.APIStatusError, openai.APIConnectionError):
        return False


def restart(mesh: ServeProcess, instances: Sequence[str]) -> None:
    killed = {instance: mesh.kill(instance) for instance in instances}
    for instance, pid in killed.items():
        mesh.wait_restarted(instance, pid)
    wait_for(lambda: answers(mesh), 120, f"an answer after {', '.join(instances)} were killed", alive=mesh.process)


def instances(mesh: ServeProcess) -> list[str]:
    """One of each service."""
    return [next(iter(mesh.pids(service))) for service in SERVICES]


# -- the folder and the environment --


def plant(folder: Path) -> Path:
    """Fills `folder` with what must not be imported or run. Gives the file in which whatever runs leaves its name."""
    found = folder / "found"
    names = set(sys.stdlib_module_names) | {"radixmesh", "numpy", "torch", "nats", "pydantic", "aiohttp", "msgpack"}
    for name in names | {"sitecustomize", "usercustomize", "services", "shared"}:
        (folder / f"{name}.py").write_text(
            f"open({str(found)!r}, 'a').write({name!r} + ' ')\nraise RuntimeError('not the module you wanted')\n"
        )
    for name in ("nats-server", "g++", "c++", "clang++"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {found}\nexit 1\n")
        (folder / name).chmod(0o755)
    return found


@pytest.mark.parametrize("hostile_from_the_start", [True, False])
def test_all_five_services_come_back_in_a_hostile_folder(tmp_path: Path, hostile_from_the_start: bool) -> None:
    """Planted later there may also be variables that mean the current folder: it is empty when Python itself starts."""
    environ = {"PATH": f":{os.environ['PATH']}", "CPATH": ":", "PYTHONSTARTUP": str(tmp_path / "random.py")}
    if hostile_from_the_start:
        found = plant(tmp_path)
    else:
        environ["PYTHONPATH"] = f":{os.environ.get('PYTHONPATH', '')}:"
    with ServeProcess(*SMALL, cwd=tmp_path, environ=environ) as mesh:
        if not hostile_from_the_start:
            found = plant(tmp_path)
        before = complete(mesh)
        restart(mesh, [*instances(mesh), "nats-server"])
        assert complete(mesh) == before
        assert not found.exists(), found.read_text()


@pytest.mark.parametrize("before_the_start", [True, False])
def test_they_come_back_where_the_folder_has_been_deleted(tmp_path: Path, before_the_start: bool) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    wrapper = ("/bin/sh", "-c", f'rmdir {folder}; exec "$@"', "sh") if before_the_start else ()
    with ServeProcess(*SMALL, cwd=folder, wrapper=wrapper) as mesh:
        folder.exists() and folder.rmdir()
        restart(mesh, [*instances(mesh), "nats-server"])


# -- signals --


def test_signals_that_were_ignored_stay_so() -> None:
    """As `nohup` and a shell's `&` leave them. SIGTERM ends the mesh all the same."""
    wrapper = ("/bin/sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh")
    with ServeProcess(*SMALL, wrapper=wrapper) as mesh:
        restart(mesh, ["detokenizer-0"])  # one that was started anew is no different
        before = mesh.pids()
        for pid in (mesh.process.pid, *(pid for name, pid in before.items() if name != "nats-server")):
            os.kill(pid, signal.SIGHUP)
            os.kill(pid, signal.SIGINT)
        assert complete(mesh)
        assert complete(mesh)
        assert mesh.pids() == before
        assert "stopping" not in mesh.output
        assert mesh.stop(signal.SIGTERM) == 0


def test_a_hangup_is_the_orderly_end_of_one_that_is_in_the_foreground() -> None:
    with ServeProcess(*SMALL) as mesh:
        assert mesh.stop(signal.SIGHUP) == 0
        assert mesh.output.rstrip().endswith("stopping ...")


def test_closed_streams_take_no_service_down() -> None:
    """Daemons are started so. What is opened first would get their numbers."""
    wrapper = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    with ServeProcess(*SMALL, wrapper=wrapper) as mesh:
        restart(mesh, ["tokenizer-0"])
        assert mesh.stop() == 0


# -- what a restart needs --


def test_nothing_is_needed_of_what_was_written_before(tmp_path: Path) -> None:
    """Temporary files are cleaned away from under a server that has run for days; so may its logs be."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with ServeProcess(*SMALL, environ={"TMPDIR": str(temporary)}) as mesh:
        for _ in range(2):
            shutil.rmtree(temporary)
            shutil.rmtree(mesh.log_dir)
            restart(mesh, [*instances(mesh), "nats-server"])
        assert "Server is ready" in mesh.log("nats-server")
        (private,) = temporary.iterdir()
        assert private.stat().st_mode & 0o077 == 0
        assert (private / "nats.conf").stat().st_mode & 0o777 == 0o600
        assert mesh.stop() == 0
        assert not list(temporary.iterdir())


def test_what_a_killed_supervisor_left_goes_at_the_next_start(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def has_its_bus(mesh: ServeProcess) -> bool:
        return "nats-server" in mesh.pids()

    with ServeProcess(*SMALL, environ={"TMPDIR": str(temporary)}, wait=False) as mesh:
        wait_for(lambda: has_its_bus(mesh), 60, "the bus", alive=mesh.process)
        mesh.process.kill()
        mesh.process.wait()
        left = set(temporary.iterdir())
        assert left
    with ServeProcess(*SMALL, environ={"TMPDIR": str(temporary)}, wait=False) as another:
        wait_for(lambda: has_its_bus(another), 60, "the bus", alive=another.process)
        assert not left & set(temporary.iterdir())
        assert another.stop() == 0
    assert not list(temporary.iterdir())


# -- the user --


def as_a_stranger() -> tuple[str, ...]:
    """Runs a command as a user whom the system does not know, who may read everything, as this environment lies where
    it lies, and write next to nothing. Only root can do that: others run it as they are, without the home."""
    if os.geteuid():
        return ()
    may_read = ("--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search")
    return ("setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups", *may_read)


@pytest.mark.parametrize("home", [None, "", "/root", "/proc/self"])
def test_a_user_without_a_home(tmp_path: Path, home: str | None) -> None:
    """Logs and kernels are in a temporary folder, as nobody may write anywhere else."""
    library = native()
    assert library is not None
    temporary, compiler = tmp_path / "temporary", tmp_path / "g++"
    temporary.mkdir()
    # Gives what was compiled before; alone stands --version.
    compiler.write_text(f'#!/bin/sh\nfor last; do true; done\n[ $# = 1 ] || cp {library.path} "$last"\n')
    compiler.chmod(0o755)
    environ = {"TMPDIR": str(temporary), "RADIXMESH_CXX": str(compiler), "RADIXMESH_KERNELS": "native"}
    unset = [f"--unset={name}" for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "USER", "LOGNAME")]
    given = [f"HOME={home}"] if home is not None and (home != "/root" or os.geteuid() == 0) else []
    if not given and os.geteuid():
        given = ["HOME=/nowhere"]  # the system knows where ours is
    wrapper = (*as_a_stranger(), "env", *unset, *given)
    mesh = ServeProcess(*SMALL, environ=environ, wrapper=wrapper, own_log_dir=False, cwd=temporary)
    for folder in (temporary, mesh.directory, tmp_path, *itertools.islice(tmp_path.parents, 2)):
        folder.chmod(0o777)
    with mesh:
        assert complete(mesh)
        (log_dir,) = temporary.glob("radixmesh-*/serve-*")
        assert (log_dir / "worker-r0-0.log").exists()
        assert str(log_dir) == mesh.state["log_dir"]
        assert len(list(temporary.glob("radixmesh-*/kernels/*/kernels.so"))) == 1
        assert "Traceback" not in mesh.output
        assert mesh.stop() == 0
    assert [item.name for item in temporary.iterdir() if not item.name.startswith("radixmesh-")] == []


# -- words --


def test_words_that_could_mean_something_else() -> None:
    """A name like a flag, empty variables as compose files write them, and a key from a file that ends with a line."""
    empty = ("MAX_SLOTS", "MAX_MODEL_LEN", "KV_MEMORY", "THREADS", "DTYPE", "LOG_LEVEL", "MAILBOX_SIZE", "NATS_URL")
    environ = {f"RADIXMESH_{name}": "" for name in empty} | {"RADIXMESH_API_KEY": " hush\n"}
    with ServeProcess(*SMALL, "--served-model-name=-x", environ=environ) as mesh:
        assert mesh.model == "-x"
        assert complete(mesh, "hush")
        with pytest.raises(openai.AuthenticationError):
            complete(mesh, "hush!")
        restart_with_key(mesh)


def restart_with_key(mesh: ServeProcess) -> None:
    mesh.wait_restarted("tokenizer-0", mesh.kill("tokenizer-0"))

    def answers_again() -> bool:
        try:
            return bool(complete(mesh, "hush"))
        except (openai.InternalServerError, openai.APIConnectionError):
            return False

    wait_for(answers_again, 120, "an answer after the tokenizer was killed", alive=mesh.process)
