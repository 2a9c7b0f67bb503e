"""``python -m radixmesh.services.gateway``"""

from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.gateway.service import Gateway
from radixmesh.shared.actor.main import main

if __name__ == "__main__":
    raise SystemExit(main(Gateway, GatewaySettings))
