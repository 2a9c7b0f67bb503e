"""Loss on held-out conversations, by kind."""

from collections import defaultdict
from itertools import islice

import torch
import torch.nn.functional as F

from training.corpus.conversation import Conversation, conversations
from training.data import Batch, Encoder, collate, grouped
from training.model import Model

SCANNED, PER_KIND = 1200, 8
SEED = 77


class Heldout:
    """A fixed sample: up to `PER_KIND` conversations of each kind."""

    def __init__(self, encoder: Encoder, tokens: int = 2048) -> None:
        by_kind: dict[str, list[Conversation]] = defaultdict(list)
        for conversation in islice(conversations(SEED, "heldout"), SCANNED):
            by_kind[conversation.kind].append(conversation)
        self._batches: dict[str, list[Batch]] = {}
        for kind in sorted(by_kind):
            examples = sorted(encoder(by_kind[kind][:PER_KIND]), key=lambda example: len(example.ids))
            self._batches[kind] = [collate(group, None) for group in grouped(examples, tokens)]

    @property
    def kinds(self) -> list[str]:
        return list(self._batches)

    @torch.no_grad()
    def losses(self, model: Model) -> dict[str, float]:
        """Mean cross-entropy of the assistant's tokens, in nats, by kind; under ``all`` that of all of them."""
        losses, every, count = {}, 0.0, 0
        for kind, batches in self._batches.items():
            total, tokens = 0.0, 0
            for batch in batches:
                states = model(batch.ids)[0].flatten(0, 1)[batch.places]
                total += float(F.cross_entropy(model.logits(states), batch.targets, reduction="sum"))
                tokens += len(batch.targets)
            losses[kind] = total / max(1, tokens)
            every, count = every + total, count + tokens
        return losses | {"all": every / max(1, count)}
