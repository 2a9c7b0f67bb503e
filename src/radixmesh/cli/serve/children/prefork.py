"""Children that are forked before it is their turn.

    command      forks the workers at once, imports what all services share, then forks the others
    child        imports its service, and waits
    supervisor   an order (flags, environment) makes the child that very service, as if it had just been started

Importing takes a second for what all share and three more for torch: five interpreters on two cores would be busy with
it for six seconds. A child that is started again after its end is a fresh interpreter; so is every child where the
system has no `pidfd_open` to learn of a forked one's end.
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec

from radixmesh.cli.serve.host import interpreter
from radixmesh.cli.serve.host.title import set_title
from radixmesh.cli.serve.planning.plan import ProcessSpec

log = logging.getLogger(__name__)

SUPPORTED = hasattr(os, "pidfd_open")

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_ANY_DESCRIPTOR = 1 << 20
_PIPE_BYTES = 1 << 16
"""An order fits into a pipe, so that giving it never waits for a child that is still importing."""


class Forked:
    """A forked child that has its order: what the supervisor asks of an `asyncio.subprocess.Process`, no more."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._descriptor = os.pidfd_open(pid)
        loop.add_reader(self._descriptor, self._reap)

    async def wait(self) -> int:
        """Its exit status; negative if a signal ended it."""
        status: int = await asyncio.shield(self._ended)
        return status

    def send_signal(self, signum: int) -> None:
        """Raises ProcessLookupError after its end."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, signum)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set_result(self.returncode)


@dataclass(frozen=True, slots=True)
class WaitingChild:
    """The parent's side of a child that waits."""

    pid: int
    output: int
    """Descriptor: the reading end of its standard output and error."""
    orders: int
    """Descriptor: the writing end of a pipe."""

    def order(self, argv: Sequence[str], environ: Mapping[str, str]) -> bool:
        """Tells it to run with the flags of `argv`, and with just `environ`.

        Returns:
            False if that cannot be done, because it has died or the order is too long. Nothing is left of it then.
        """
        order = json.dumps({"argv": list(argv), "environ": dict(environ)}).encode()
        try:
            with open(self.orders, "wb", buffering=0) as pipe:
                if len(order) <= _PIPE_BYTES:
                    pipe.write(order)
                    return True
        except BrokenPipeError:
            log.info("a child that was forked for later has died meanwhile")
        self._bury()
        return False

    def _bury(self) -> None:
        os.close(self.output)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@dataclass(frozen=True, slots=True)
class ForkedService:
    """The child's side: the service that it is to become."""

    spec: ProcessSpec
    orders: int

    def serve(self) -> int:
        """Imports the service, waits for the order and carries it out. Returns or exits as the service does.

        For a caller on whose stack nothing is left to be tidied up: that is the parent's business.
        """
        package = f"radixmesh.services.{self.spec.service}"
        os.environ.update(self.spec.environ)
        sys.argv[1:] = interpreter.arguments(self.spec.argv)
        set_title(self.spec.argv)
        gc.disable()  # an import makes no garbage worth the search for it
        if find_spec(f"{package}.preload") is not None:
            import_module(f"{package}.preload").begin()
        import_module(f"{package}.service")
        import_module("radixmesh.shared.actor.main")
        gc.enable()
        gc.freeze()
        with open(self.orders, "rb") as pipe:
            text = pipe.read()
        if not text:  # the supervisor has no use for us
            return 0
        order = json.loads(text)
        os.environ.clear()
        os.environ.update(order["environ"])
        sys.argv[1:] = interpreter.arguments(order["argv"])
        runpy.run_module(package, run_name="__main__", alter_sys=True)
        return 0


@dataclass
class Preforked:
    """All children that wait, by instance."""

    _waiting: dict[str, WaitingChild] = field(default_factory=dict)

    def fork(self, specs: Iterable[ProcessSpec]) -> ForkedService | None:
        """Forks a child for each of `specs`. In a child it returns what that is to serve as, and do nothing else.

        Forks nothing if there is a second thread: a child would have that one's locks for ever.
        """
        for spec in specs if SUPPORTED and threading.active_count() == 1 else ():
            if (service := self._fork(spec)) is not None:
                return service
        return None

    def _fork(self, spec: ProcessSpec) -> ForkedService | None:
        parent = os.getpid()
        output, child_output = os.pipe()
        child_orders, orders = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _settle(parent, child_output, child_orders)
            return ForkedService(spec, child_orders)
        os.close(child_output)
        os.close(child_orders)
        self._waiting[spec.instance] = WaitingChild(pid, output, orders)
        return None

    def take(self, instance: str) -> WaitingChild | None:
        """The child that waits to be `instance`, once."""
        return self._waiting.pop(instance, None)


def die_with(parent: int) -> None:
    """Runs in the child behind the fork: Linux kills it when its parent dies, however that happens."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died between the fork and the line above
        os._exit(1)


def _settle(parent: int, output: int, orders: int) -> None:
    """Gives a forked child what one that is started anew has: a session, streams, and an end with its parent."""
    os.setsid()
    die_with(parent)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    # The parent's ends of our siblings' pipes are here too: they would never see them closed.
    os.closerange(3, orders)
    os.closerange(orders + 1, _ANY_DESCRIPTOR)
