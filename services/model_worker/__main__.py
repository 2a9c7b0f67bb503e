"""`python -m radixmesh.services.model_worker`"""

from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.service import ModelWorker
from radixmesh.shared.process import main

if __name__ == "__main__":
    raise SystemExit(main(ModelWorker, ModelWorkerSettings))
