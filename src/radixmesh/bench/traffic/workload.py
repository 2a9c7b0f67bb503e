"""Prompts and arrival times. All of it is made before the clock starts, down to the bytes of each body."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radixmesh.bench.settings import BenchError, Settings
from radixmesh.bench.traffic.words import WORDS

DEFAULT_VOCAB_SIZE = 1000
Prompt = Sequence[int | str]


@dataclass(frozen=True, slots=True)
class Alphabet:
    """What prompts are drawn from: token ids, or words."""

    symbols: Prompt
    text: bool

    @property
    def vocab_size(self) -> int | None:
        """Ids are below it; None for words."""
        return None if self.text else int(self.symbols[-1]) + 1

    def draw(self, rng: np.random.Generator, length: int) -> Prompt:
        return [self.symbols[i] for i in rng.integers(0, len(self.symbols), length).tolist()]

    def join(self, prompt: Prompt) -> Prompt | str:
        return " ".join(map(str, prompt)) if self.text else prompt


@dataclass(frozen=True, slots=True)
class Job:
    """One request, ready to send."""

    body: bytes
    input_len: int
    """Tokens, a shared prefix included; for text, before the server's template and special tokens."""
    output_len: int
    """Tokens asked for."""
    prefix_len: int
    """Tokens that other requests of the same group begin with too."""
    at: float
    """Seconds after the run's start; 0 for all when the concurrency is fixed."""


def alphabet(settings: Settings, served_vocab_size: int | None = None) -> Alphabet:
    """`served_vocab_size`: by the server's word; it counts where neither flags nor a tokenizer tell.

    Raises:
        BenchError: the tokenizer cannot be read, or knows too few of WORDS.
    """
    tokenizer = _load_tokenizer(settings.tokenizer) if settings.tokenizer else None
    if settings.prompt == "text":
        return Alphabet(_one_token_words(tokenizer) if tokenizer else WORDS, text=True)
    size = settings.vocab_size or (
        tokenizer.get_vocab_size(with_added_tokens=False)
        if tokenizer
        else min(DEFAULT_VOCAB_SIZE, served_vocab_size or DEFAULT_VOCAB_SIZE)
    )
    # Special ids usually come first.
    return Alphabet(range(min(100, size // 4), size), text=False)


def make_run(settings: Settings, model: str, source: Alphabet, run: int) -> tuple[list[Job], list[Job]]:
    """The requests of one run, and those that warm its shared prefixes (one per prefix, one token out).

    `run` 0 is the warm-up. Every run draws prompts and prefixes of its own from the same seed, so that none
    finds the prompts of an earlier one in the server's prefix cache.
    """
    rng = np.random.default_rng([settings.seed, run])
    count = settings.requests if run else settings.warmup
    groups = settings.shared_prefixes if settings.shared_prefix_len else 1
    prefixes = [source.draw(rng, settings.shared_prefix_len) for _ in range(groups)]
    # Even shares in random order: a round-robin router must not look clever by accident.
    group_of = rng.permutation(np.arange(count) % groups).tolist()
    input_lens = rng.integers(*settings.input_len, count, endpoint=True).tolist()
    output_lens = rng.integers(*settings.output_len, count, endpoint=True).tolist()
    times = _arrivals(rng, settings.request_rate, count) if run else [0.0] * count

    def job(prefix: Prompt, tail: Prompt, output_len: int, at: float) -> Job:
        body = _body(settings, model, source.join([*prefix, *tail]), output_len)
        return Job(body, len(prefix) + len(tail), output_len, len(prefix), at)

    jobs = [
        job(prefixes[group], source.draw(rng, length), output_len, at)
        for group, length, output_len, at in zip(group_of, input_lens, output_lens, times, strict=True)
    ]
    warmers = [job(prefix, source.draw(rng, 1), 1, 0.0) for prefix in prefixes]
    return jobs, warmers if settings.warm_prefixes else []


def _arrivals(rng: np.random.Generator, rate: float | None, count: int) -> list[float]:
    """Seconds: a Poisson process of `rate` per second that starts with an arrival."""
    if rate is None or not count:
        return [0.0] * count
    gaps = rng.exponential(1 / rate, count - 1)
    return [0.0, *np.cumsum(gaps).tolist()]


def _body(settings: Settings, model: str, prompt: Prompt | str, output_len: int) -> bytes:
    body: dict[str, Any] = {"model": model}
    if settings.endpoint == "chat":
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    body |= {
        "max_tokens": output_len,
        "temperature": settings.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if settings.ignore_eos:
        body["ignore_eos"] = True
    return json.dumps(body | settings.extra_body, separators=(",", ":")).encode()


def _load_tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise BenchError("--tokenizer needs the package `tokenizers`: pip install tokenizers") from None
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise BenchError(f"--tokenizer: no file {file}")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001 - the package raises bare Exception for a bad file
        raise BenchError(f"--tokenizer: cannot read {file}: {error}") from None


def _one_token_words(tokenizer: Any) -> tuple[str, ...]:
    """The WORDS that are one token at the start of a text and one more after a space."""

    def tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    words = tuple(word for word in WORDS if tokens(word) == 1 and tokens(f"{word} {word}") == 2)
    if len(words) < 32 or tokens(" ".join(words)) != len(words):
        raise BenchError("--tokenizer: too few common words are one token in it; use --prompt ids")
    return words
