"""What a tokenized request leads to: one message each for the detokenizer, the replica and the gateway."""

from dataclasses import dataclass

from radixmesh.services.tokenizer.encode import Encoded
from radixmesh.services.tokenizer.routing.router import Route
from radixmesh.shared.messages import Admit, Choice, OpenText, Presence, Routed, Submit

TAIL = 16
"""Prompt ids that a detokenizer gets: enough to finish a character that the prompt began, and to know whether a
sentencepiece word starts the text."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """The three messages, in the order in which they are to be published."""

    open_text: OpenText
    admit: Admit
    routed: Routed


def choices_of(submit: Submit) -> list[Choice]:
    """The choices to run: those named, or all n."""
    return list(submit.choices) or [Choice(index=index) for index in range(submit.work.params.n)]


def dispatch(submit: Submit, encoded: Encoded, route: Route, detokenizer: Presence, time_left: float) -> Dispatch:
    """Sends `submit`, of whose time `time_left` seconds remain now, on its way along `route`."""
    choices, params = choices_of(submit), submit.work.params
    open_text = OpenText(
        request_id=submit.request_id,
        attempt=submit.attempt,
        gateway_id=submit.gateway_id,
        prompt_tail=encoded.ids[-TAIL:],
        prompt_tokens=len(encoded.ids),
        choices=choices,
        stop=params.stop,
        min_tokens=params.min_tokens,
        skip_special_tokens=params.skip_special_tokens,
        reasoning_tags=encoded.reasoning_tags,
        reasoning_open=encoded.reasoning_open,
        time_left=time_left,
    )
    admit = Admit(
        request_id=submit.request_id,
        attempt=submit.attempt,
        gateway_id=submit.gateway_id,
        detokenizer_id=detokenizer.instance,
        replica_epoch=route.epoch,
        work=submit.work,
        prompt_ids=encoded.ids,
        choices=choices,
        time_left=time_left,
    )
    routed = Routed(
        request_id=submit.request_id,
        attempt=submit.attempt,
        replica_id=route.replica_id,
        replica_epoch=route.epoch,
        detokenizer_id=detokenizer.instance,
        detokenizer_epoch=detokenizer.epoch,
        prompt_tokens=len(encoded.ids),
        reason=route.reason,
    )
    return Dispatch(open_text, admit, routed)
