"""The whole of each service's ``__main__``: settings, logging, tracing, signals, run, exit status."""

import asyncio
import logging
import sys
from collections.abc import Sequence

from radixmesh.shared import telemetry
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ConfigError, ModelLoadError, RadixMeshError
from radixmesh.shared.host.signals import on_end_signals

log = logging.getLogger(__name__)

EXIT_CONFIG = 2
"""Exit status of a process that would fail again: wrong settings, or a model that cannot be loaded."""


def main(actor: type[Actor], settings: type[ServiceSettings], argv: Sequence[str] | None = None) -> int:
    """Runs one service until it is told to end.

    Returns:
        The process's exit status: 0 after an orderly end, `EXIT_CONFIG` for settings or a model that can never work,
        1 after any other failure.
    """
    prog = f"radixmesh run {actor.service}"
    try:
        loaded = settings.load(sys.argv[1:] if argv is None else argv, prog)
    except ConfigError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner:
        return runner.run(_run(actor, loaded))


async def _run(actor: type[Actor], settings: ServiceSettings) -> int:
    # Actors take any settings class of their own, which the type system cannot tie to the actor's class here.
    service = actor(settings)
    telemetry.setup_logging(actor.service, service.instance, settings.log_level, settings.log_format)
    telemetry.setup(actor.service, service.instance)
    on_end_signals(service.stop)
    try:
        await service.run()
    except (ConfigError, ModelLoadError) as error:
        log.error("%s", error)
        return EXIT_CONFIG
    except RadixMeshError as error:
        log.error("%s", error)
        return 1
    except Exception:
        log.exception("%s ends on an error", service.instance)
        return 1
    finally:
        telemetry.shutdown()
    return 0
