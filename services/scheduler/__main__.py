"""Entry point: ``python -m radixmesh.services.scheduler``."""

from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.service import Scheduler
from radixmesh.shared.actor.main import main

if __name__ == "__main__":
    raise SystemExit(main(Scheduler, SchedulerSettings))
