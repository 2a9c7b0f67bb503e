"""`python -m radixmesh.services.model_worker`"""

from radixmesh.services.model_worker import preload

if __name__ == "__main__":
    preload.begin()  # before the imports, which take seconds
    from radixmesh.services.model_worker.config import ModelWorkerSettings
    from radixmesh.services.model_worker.service import ModelWorker
    from radixmesh.shared.actor.main import main

    raise SystemExit(main(ModelWorker, ModelWorkerSettings))
