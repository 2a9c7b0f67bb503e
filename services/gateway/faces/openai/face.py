"""OpenAI's API, as far as it is served."""

from radixmesh.services.gateway.faces.http.endpoint import Endpoint
from radixmesh.services.gateway.faces.http.streams import runs
from radixmesh.services.gateway.faces.openai.chat import chat_job
from radixmesh.services.gateway.faces.openai.completions import completion_job
from radixmesh.services.gateway.faces.openai.models import Models
from radixmesh.services.gateway.requests.submission import Submitter


def endpoints(submitter: Submitter) -> list[Endpoint]:
    """All of this face."""
    models = Models(submitter.mesh)
    return [
        Endpoint("POST", "/v1/chat/completions", runs(chat_job, submitter)),
        Endpoint("POST", "/v1/completions", runs(completion_job, submitter)),
        Endpoint("GET", "/v1/models", models.all),
        Endpoint("GET", "/v1/models/{id:.+}", models.one),
    ]
