"""What each request field leads to: the one table for all HTTP endpoints.

An endpoint honours the fields of its schema. Every other field that clients are known to send, by the protocols of
OpenAI, SGLang, vLLM and a few more, stands in `FIELDS`: with the values that leave the answer as it is, any other being
refused by name, so that nobody gets an answer to another question than he asked; or with `...`, where no value can
change the answer. Fields that no server knows are ignored, as everywhere.
"""

from collections.abc import Mapping
from types import EllipsisType
from typing import Any

from pydantic import BaseModel

from radixmesh.services.gateway.errors import invalid

Neutral = tuple[Any, ...] | EllipsisType
"""Values that leave the answer as it is; `...` stands for any."""

_GRAMMAR: dict[str, Neutral] = {
    "response_format": ({"type": "text"},),
    "structured_outputs": ({},),
    "structural_tag": ("",),
    "json_schema": ("",),
    "regex": ("",),
    "ebnf": ("",),
    "grammar": ("",),
    "guided_json": ("",),
    "guided_regex": ("",),
    "guided_choice": ([],),
    "guided_grammar": ("",),
    "format": ("",),
    "guided_decoding_backend": ...,  # says how, not what
    "guided_whitespace_pattern": ...,
}

_LOGPROBS: dict[str, Neutral] = {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (False,),
    "return_logprob": (False,),
    "logprob_start_len": (-1,),
    "top_logprobs_num": (0,),
    "token_ids_logprob": ([],),
    "return_text_in_logprobs": (False,),
    "n_probs": (0,),
    "top_n_tokens": (0,),
}

_TOOLS: dict[str, Neutral] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": ...,  # about calls, of which there are none without tools
    "functions": ([],),
    "function_call": ("none", "auto"),
    "web_search_options": (),
    "enable_search": (False,),
    "search_parameters": ({"mode": "off"},),
}

_REASONING: dict[str, Neutral] = {
    "reasoning": (),
    "reasoning_effort": (),
    "think": (),
    "thinking": (),
    "enable_thinking": (),
    "thinking_budget": (-1,),
    "thinking_budget_tokens": (-1,),
    "thinking_token_budget": (-1,),
    "max_thinking_tokens": (-1,),
    "reasoning_budget": (-1,),
    "reasoning_format": ("none",),
    "separate_reasoning": (False,),
    "include_reasoning": (True,),
    "require_reasoning": (False,),
    "stream_reasoning": ...,  # when it is sent, not what
}

_SAMPLING: dict[str, Neutral] = {
    "best_of": (1,),  # or n
    "use_beam_search": (False,),
    "beam_width": (1,),
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "length_penalty": (1,),
    "diversity_penalty": (0,),
    "early_stopping": (False,),
    "do_sample": (True,),
    "typical_p": (1,),
    "typical": (1,),
    "typ_p": (1,),
    "top_a": (0,),
    "tfs": (1,),
    "tfs_z": (1,),
    "eta_cutoff": (0,),
    "epsilon_cutoff": (0,),
    "top_p_min": (0,),
    "top_n_sigma": (-1, 0),
    "nsigma": (0,),
    "xtc_probability": (0,),
    "xtc_threshold": (0.1,),
    "dry_multiplier": (0,),
    "dry_base": (1.75,),
    "dry_allowed_length": (2,),
    "dry_penalty_last_n": (-1, 0),
    "dry_range": (-1, 0),
    "dry_sequence_breakers": ([], ["\n", ":", '"', "*"]),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "mirostat_tau": (5,),
    "mirostat_eta": (0.1,),
    "dynatemp_range": (0,),
    "dynatemp_min": (0,),
    "dynatemp_max": (0,),
    "dynatemp_exponent": ...,  # of a range that is refused
    "smoothing_factor": (0,),
    "smoothing_curve": ...,  # of a factor that is refused
    "temperature_last": (False,),
    "samplers": (),
    "sampler_order": (),
    "sampler_priority": (),
    "penalty_alpha": (0,),
    "guidance_scale": (1,),
    "negative_prompt": ("",),
    "repeat_penalty": (1,),
    "repeat_last_n": (-1, 64),  # the latter is a default that clients send along
    "penalize_nl": (False,),
    "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "repetition_ngram_size": (0,),
    "repetition_detection": (),
    "watermark": (False,),
    "bad_words": ([],),
    "banned_strings": ([], ""),
    "banned_tokens": ([], ""),
    "custom_token_bans": ([], ""),
    "ban_eos_token": (False,),
    "allowed_token_ids": (),
    "logits_processors": ([],),
    "custom_logit_processor": ("",),
    "custom_params": ({},),
    "vllm_xargs": ({},),
    "n_predict": (-1,),
    "num_predict": (-1,),
    "max_output_tokens": (),
    "random_seed": (),
    "num_return_sequences": (1,),
    "skew": (0,),
    "dynamic_temperature": (False,),
    "dynatemp_low": (),
    "dynatemp_high": (),
    "min_keep": (0,),
    "n_indent": (0,),
}

_TEXT: dict[str, Neutral] = {
    "stop_regex": ("", []),
    "stop_sequences": ([],),
    "stop_strings": ([],),
    "stop_words": ([],),
    "t_max_predict_ms": (-1, 0),
    "no_stop_trim": (False,),
    "include_stop_str_in_output": (False,),
    "detokenize": (True,),
    "spaces_between_special_tokens": ...,  # such spaces are put by tokenizers of a kind that is not served
    "verbosity": ("medium",),
    "modalities": (["text"],),
    "audio": (),
    "return_full_text": (False,),
}

_PROMPT: dict[str, Neutral] = {
    "prompt": (),
    "suffix": ("",),
    "echo": (False,),
    "messages": ([],),
    "system": ("",),
    "instructions": ("",),
    "input": (),
    "previous_response_id": (),
    "safe_prompt": (False,),
    "documents": ([],),
    "chat_template": ("",),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "truncate_prompt_tokens": (),
    "truncate": (),
    "prompt_truncate_len": (),
    "context_length_exceeded_behavior": ("error",),
    "transforms": ([],),
    "truncation_side": ...,  # of a truncation that is refused
    "input_ids": (),
    "input_embeds": (),
    "prompt_embeds": (),
    "image_data": ([],),
    "audio_data": ([],),
    "video_data": ([],),
    "media_io_kwargs": ...,  # about images and sound, which are refused where they stand
    "mm_processor_kwargs": ...,
    "max_dynamic_patch": ...,
    "min_dynamic_patch": ...,
    "image_max_dynamic_patch": ...,
    "video_max_dynamic_patch": ...,
    "use_audio_in_video": ...,
    "lora": ("",),
    "lora_path": ("", []),
    "lora_request": (),
    "adapter_id": ("",),
    "sampling_params": ({},),
    "extra_body": ({},),
    "options": ({},),
}

_MORE_IN_THE_ANSWER: dict[str, Neutral] = {
    "return_hidden_states": (False,),
    "return_routed_experts": (False,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "return_prompt_token_ids": (False,),
    "return_cached_tokens_details": (False,),
    "return_meta_info": (False,),
    "return_context_logits": (False,),
    "return_generation_logits": (False,),
    "details": (False,),
    "decoder_input_details": (False,),
}

_REQUEST: dict[str, Neutral] = {
    "rid": (),
    "models": ([],),  # others to answer in place of the one that is asked for
    "session_params": ({},),
    "data_parallel_rank": (-1,),
    "routed_dp_rank": (-1,),
    "disagg_prefill_dp_rank": (-1,),
    "bootstrap_host": ("",),
    "bootstrap_port": (),
    "bootstrap_room": (),
    "kv_transfer_params": ({},),
    "disaggregated_params": ({},),
    "user": ...,
    "metadata": ...,
    "store": ...,
    "service_tier": ...,
    "safety_identifier": ...,
    "prompt_cache_key": ...,  # where to look for a cached prefix; it shuts nobody out
    "prompt_cache_retention": ...,
    "cache_prompt": ...,
    "prediction": ...,  # a guess that makes answers faster
    "request_id": ...,
    "custom_labels": ...,
    "keep_alive": ...,
}

FIELDS: dict[str, Neutral] = {
    **_GRAMMAR, **_LOGPROBS, **_TOOLS, **_REASONING, **_SAMPLING, **_TEXT, **_PROMPT, **_MORE_IN_THE_ANSWER, **_REQUEST,
}  # fmt: skip
"""By name. null is left out, always. Schemas come first."""

_ADVICE = {
    "chat_template": "not taken from clients: the model's own template is used",
    "enable_thinking": "belongs into chat_template_kwargs",
    "extra_body": "its fields belong into the body itself",
    "n_predict": "send max_tokens",
    "num_predict": "send max_tokens",
    "max_output_tokens": "send max_tokens",
    "random_seed": "send seed",
    "stop_sequences": "send stop",
    "stop_strings": "send stop",
    "stop_words": "send stop",
    "think": "send chat_template_kwargs",
    "system": "send a message of that role",
    "repeat_penalty": "send repetition_penalty",
    "do_sample": "send temperature = 0",
    "prompt": "not a field of chat completions: send messages",
    "messages": "not a field of completions: send a prompt",
}


def refuse(data: Mapping[str, Any], schema: type[BaseModel]) -> None:
    """Raises RequestError for a field that `schema` does not have, and that is neither harmless nor unheard of."""
    for name, value in data.items():
        neutral = FIELDS.get(name, ...)
        if value is None or neutral is ... or name in schema.model_fields:
            continue
        if name == "best_of":
            neutral = (1, data.get("n"))
        if not any(_same(value, harmless) for harmless in neutral):
            raise invalid(f"{name}: {_ADVICE.get(name, 'not supported yet')}", name)


def _same(value: object, harmless: object) -> bool:
    """Equality, to which false is not 0."""
    return isinstance(value, bool) == isinstance(harmless, bool) and value == harmless
