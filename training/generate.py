"""Greedy answers of a batch of prompts, with a KV cache."""

import torch
from torch import Tensor

from training.model import Model
from training.tokenizer import END, PAD


@torch.no_grad()
def greedy(model: Model, prompts: list[list[int]], max_tokens: int = 128) -> list[list[int]]:
    """The continuation of each prompt, without the token that ends it; cut at `max_tokens`."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    start = torch.tensor([width - len(prompt) for prompt in prompts])
    real = torch.arange(width + max_tokens)[None] >= start[:, None]  # [B, all places]: not padding
    past, tokens = None, ids
    answers: list[list[int]] = [[] for _ in prompts]
    done = torch.zeros(len(prompts), dtype=torch.bool)
    for step in range(max_tokens):
        seen = width + step
        places = torch.arange(seen - tokens.shape[1], seen)
        mask = attended(places, real[:, :seen])
        states, past = model(tokens, past, (places[None] - start[:, None]).clamp(min=0), mask)
        chosen = model.logits(states[:, -1]).argmax(-1)
        done |= chosen.eq(END) | chosen.eq(PAD)
        if bool(done.all()):
            break
        for answer, token, ended in zip(answers, chosen.tolist(), done.tolist(), strict=True):
            if not ended:
                answer.append(token)
        tokens = chosen[:, None]
    return answers


def attended(places: Tensor, real: Tensor) -> Tensor:
    """bool [B, 1, T, S]: the query at places [T] sees what is real [B, S] up to itself; padding sees itself alone,
    as a softmax over nothing is not a number.
    """
    keys, queries = torch.arange(real.shape[1])[None], places[:, None]
    return (((keys <= queries)[None] & real[:, None]) | (keys == queries)[None])[:, None]
