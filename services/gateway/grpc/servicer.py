"""The methods of `radixmesh.v1.RadixMesh`."""

import asyncio
import logging
import re
from typing import Any, NoReturn

import grpc
from google.protobuf.json_format import MessageToDict

from radixmesh.services.gateway.desk import Desk
from radixmesh.services.gateway.errors import FACES, invalid, retry_after
from radixmesh.services.gateway.grpc import radixmesh_pb2 as pb
from radixmesh.services.gateway.grpc import radixmesh_pb2_grpc
from radixmesh.services.gateway.http import key_matches
from radixmesh.services.gateway.intake import Prompt, make_prompt, validate
from radixmesh.services.gateway.live import Delta, LiveRequest
from radixmesh.services.gateway.openai_schemas import MAX_TOKEN_ID, GrpcFields
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Finish

log = logging.getLogger(__name__)
