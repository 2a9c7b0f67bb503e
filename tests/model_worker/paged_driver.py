"""The smallest engine: pages, batches, greedy tokens. What the real one does, without slots, plans or a bus."""

from dataclasses import dataclass, field

import numpy as np
import torch

from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models import CausalLM


@dataclass
class Sequence:
    """`computed` tokens of `tokens` are in the cache, in `pages`."""

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    computed: int = 0

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def output(self) -> list[int]:
        return self.tokens[len(self.prompt) :]


class PagedDriver:
    """Runs steps over sequences, with page ids in random order."""

    def __init__(self, model: CausalLM, page_size: int, tokens: int = 1024) -> None:
        self.model = model
        self.page_size = page_size
        self.kv = KVCache(model.kv_groups(page_size), -(-tokens // page_size) + 8, model.device)
        self.free = np.random.default_rng(0).permutation(self.kv.pools[0].num_pages).tolist()

    def batch(self, work: list[tuple[Sequence, int]]) -> ForwardBatch:
        """The next `count` tokens of each sequence; logits of the last one of each."""
        size = self.page_size
        ids: list[int] = []
        positions: list[int] = []
        locations: list[int] = []
        rope: list[int] = []
        starts = [0]
        for sequence, count in work:
            end = sequence.computed + count
            while len(sequence.pages) * size < end:
                sequence.pages.append(self.free.pop())
            span = range(sequence.computed, end)
            ids += sequence.tokens[sequence.computed : end]
            positions += span
            locations += [sequence.pages[p // size] * size + p % size for p in span]
            rope += [len(sequence.prompt)] * count
            starts.append(len(ids))
        tables = np.zeros((len(work), max(len(s.pages) for s, _ in work)), np.int32)
        for row, (sequence, _) in zip(tables, work, strict=True):
            row[: len(sequence.pages)] = sequence.pages
        return ForwardBatch.from_numpy(
            np.array(ids),
            np.array(positions),
            [np.array(locations)] * len(self.kv.pools),
            np.array(starts),
            np.array([sequence.computed + count for sequence, count in work]),
            [tables] * len(self.kv.pools),
            np.array(starts[1:]) - 1,
            self.model.device,
            np.array(rope),
        )

    def step(self, work: list[tuple[Sequence, int]]) -> torch.Tensor:
        """Run; where a sequence's known tokens are all computed, append the likeliest next. Returns the logits."""
        logits: torch.Tensor = self.model(self.batch(work), self.kv)
        for row, (sequence, count) in zip(logits, work, strict=True):
            sequence.computed += count
            if sequence.computed == len(sequence.tokens):
                sequence.tokens.append(int(row.argmax()))
        return logits

    def release(self, sequence: Sequence) -> None:
        self.free += sequence.pages
        sequence.pages = []

    def alone(self, prompt: list[int], count: int) -> list[int]:
        """`count` tokens after `prompt`, the prompt in one piece."""
        sequence = Sequence(prompt)
        while len(sequence.output) < count:
            self.step([(sequence, len(sequence.tokens) - sequence.computed)])
        self.release(sequence)
        return sequence.output

    def mixed(self, prompts: list[list[int]], count: int, chunk: int) -> list[list[int]]:
        """The same for all prompts together: a new one arrives every second step, in chunks, while others decode."""
        sequences = [Sequence(prompt) for prompt in prompts]
        step = 0
        while any(len(sequence.output) < count for sequence in sequences):
            arrived = sequences[: step // 2 + 1]
            running = [sequence for sequence in arrived if len(sequence.output) < count]
            if running:
                self.step([(s, min(chunk, len(s.tokens) - s.computed)) for s in running])
            step += 1
        return [sequence.output for sequence in sequences]
