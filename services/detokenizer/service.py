"""The detokenizer on the bus."""

import asyncio
import contextlib
import logging
import time
from typing import Any

from radixmesh.services.detokenizer import vocabulary
from radixmesh.services.detokenizer.config import DetokenizerSettings
from radixmesh.services.detokenizer.outgoing import Outgoing
from radixmesh.services.detokenizer.table import Table
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.errors import RadixMeshError
from radixmesh.shared.messages import Cancel, OpenText, TokenBatch
from radixmesh.shared.model_files import model_source

log = logging.getLogger(__name__)

TICK = 2.0
"""Seconds between two looks for what nobody has closed. The gateways keep the clients' deadlines."""


class Detokenizer(Actor):
    """Turns the model workers' tokens into text for the gateways."""

    service = "detokenizer"
    watches = ()

    def __init__(self, settings: DetokenizerSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._table: Table
        self._fingerprint = ""
        self._moved = asyncio.Event()
        """Set whenever the table may have changed."""

    async def setup(self) -> None:
        """Loads the vocabulary, then listens. Raises ModelLoadError."""
        loaded = await asyncio.to_thread(self._load)
        self._fingerprint = loaded.fingerprint
        self._table = Table(loaded, max_requests=self._settings.max_requests, hold_seconds=self._settings.hold_seconds)
        self.on(OpenText, self._open)
        self.on(TokenBatch, self._tokens)
        self.on(Cancel, self._cancel)
        await self.listen(self.subjects.detokenizer_inbox(self.instance))
        await self.listen(self.subjects.cancel)
        self.spawn(self._clock(), essential=True)

    async def drain(self) -> None:
        """Lets open requests end, for a while; the gateways send the others round again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout):
                while len(self._table):
                    self._moved.clear()
                    await self._moved.wait()

    def model(self) -> str:
        return self._settings.model_name

    def presence_attributes(self) -> dict[str, Any]:
        """open_requests: requests whose end has not come yet. requests: attempts opened so far.
        vocabulary: the fingerprint of how tokens are spelled, which tokenizers compare with their own.
        """
        table = getattr(self, "_table", None)
        if table is None:
            return {}
        return {"open_requests": len(table), "requests": table.opened, "vocabulary": self._fingerprint}

    def _load(self) -> vocabulary.Vocabulary:
        return vocabulary.load(model_source.resolve(self._settings.model, weights=False))

    async def _open(self, message: OpenText, envelope: Envelope) -> None:
        await self._send(self._table.open(message, envelope.arrived))

    async def _tokens(self, message: TokenBatch, _envelope: Envelope) -> None:
        await self._send(self._table.tokens(message, time.monotonic()))

    async def _cancel(self, message: Cancel, _envelope: Envelope) -> None:
        self._table.cancel(message)
        self._moved.set()

    async def _clock(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            await self._send(self._table.tick(time.monotonic()))

    async def _send(self, out: Outgoing) -> None:
        self._moved.set()
        for subject, message in out.messages(self.subjects, self.instance):
            try:
                await self.bus.publish(subject, message)
            except RadixMeshError as error:  # the gateway will see a gap; the other receivers need theirs
                log.warning("%s", error)
