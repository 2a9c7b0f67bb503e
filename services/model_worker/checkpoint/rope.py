"""Rotary embedding parameters of a Hugging Face config, in both of its spellings.

Before transformers 5: `rope_theta` at the top and `rope_scaling: {"type" | "rope_type": ..., "factor": ...}`.
Since: `rope_parameters: {"rope_type": ..., "rope_theta": ..., ...}`.
"""

from dataclasses import dataclass

from radixmesh.services.model_worker.checkpoint.fields import LARGEST, Fields

ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """One rotary embedding. Fields a type does not use keep their defaults.

    `original_length` is the length the model was trained on before scaling [tokens].
    """

    theta: float
    type: str
    original_length: int
    factor: float = 1.0
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    attention_factor: float | None = None  # yarn: scales cos and sin; None: derived from `factor`
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    mscale: float | None = None  # yarn
    mscale_all_dim: float | None = None  # yarn
    truncate: bool = True  # yarn: round the ramp's ends to whole dimensions

    @property
    def length_dependent(self) -> bool:
        """Whether angles depend on the sequence's length too (see `DynamicRotaryEmbedding`)."""
        return self.type == "dynamic"


def parse_rope(config: Fields, max_positions: int) -> RopeConfig:
    """Read either spelling; `max_positions` is the config's `max_position_embeddings`."""
    params = config.sub("rope_parameters")
    if config.has("rope_scaling"):
        params = config.sub("rope_scaling")
    kind = params.text("rope_type", params.raw.get("type") or "default")
    if kind not in ROPE_TYPES:
        raise params.error("rope_type", f"{kind!r} is not supported (only {', '.join(ROPE_TYPES)})")
    for fields in (config, params):
        if fields.number("partial_rotary_factor", 1.0) != 1.0:
            raise fields.error("partial_rotary_factor", "rotating only a part of each head is not supported")
    theta = params.number("rope_theta", config.number("rope_theta", 10_000.0))
    if kind == "default":
        return RopeConfig(theta, kind, max_positions)
    if kind in ("linear", "dynamic"):
        return RopeConfig(theta, kind, max_positions, _factor(params))
    # Some configs (Phi-3's style) keep it at the top level, and that one wins.
    original = config.integer(
        "original_max_position_embeddings",
        params.integer("original_max_position_embeddings", max_positions),
    )
    if kind == "llama3":
        return _llama3(params, theta, original)
    return _yarn(params, theta, original, max_positions)


def _factor(params: Fields) -> float:
    factor = params.number("factor")
    if factor < 1.0:
        raise params.error("factor", f"must be at least 1, not {factor!r}")
    return factor


def _llama3(params: Fields, theta: float, original: int) -> RopeConfig:
    low, high = params.number("low_freq_factor"), params.number("high_freq_factor")
    if high <= low:
        raise params.error("high_freq_factor", f"must be greater than low_freq_factor ({low:g}), not {high:g}")
    factor = _factor(params)
    return RopeConfig(theta, "llama3", original, factor, low_freq_factor=low, high_freq_factor=high)


def _yarn(params: Fields, theta: float, original: int, max_positions: int) -> RopeConfig:
    def optional(name: str) -> float | None:
        return params.number(name, above=None) if params.has(name) else None

    return RopeConfig(
        theta,
        "yarn",
        original,
        _factor(params) if params.has("factor") else max_positions / original,
        attention_factor=optional("attention_factor"),
        beta_fast=params.number("beta_fast", 32.0),
        beta_slow=params.number("beta_slow", 1.0),
        mscale=optional("mscale"),
        mscale_all_dim=optional("mscale_all_dim"),
        truncate=params.flag("truncate", True),
    )


def max_length(rope: RopeConfig, max_positions: int) -> int:
    """The longest sequence the model takes once its scaling is counted [tokens].

    `linear` and `dynamic` stretch `max_position_embeddings`; `yarn` stretches the original length, which a
    config may have folded in already; `llama3` configs always have.
    """
    if rope.type in ("linear", "dynamic"):
        return _stretched(max_positions, rope.factor)
    if rope.type == "yarn":
        return max(max_positions, _stretched(rope.original_length, rope.factor))
    return max_positions


def _stretched(length: int, factor: float) -> int:
    return int(min(length * factor, LARGEST))
