"""Every NATS subject and queue group of the mesh. Nothing else spells one.

{ns}.submit.{model}            Submit                gateway -> one tokenizer of the model (queue group)
{ns}.replica.{id}.inbox        Admit, Cancel         tokenizer, detokenizer -> scheduler
{ns}.group.{id}.claim          Claim                 scheduler -> worker group's rank 0 (request / reply)
{ns}.group.{id}.plan           StepPlan, Prepare     scheduler -> every rank
{ns}.replica.{id}.report       StepReport, Prepared  rank 0, every rank -> scheduler
{ns}.detokenizer.{id}.inbox    OpenText, TokenBatch
{ns}.gateway.{id}.inbox        Routed, TextBatch, RequestFailed
{ns}.cancel                    Cancel                gateway -> every scheduler and detokenizer
{ns}.presence.{service}        Presence              everyone -> everyone
{ns}.instance.{id}.outdated    Outdated              whoever heard an outdated Presence -> its sender
{ns}.who                       WhoIsThere
{ns}.kv_events                 KvEvents              scheduler -> every tokenizer
{ns}.replica.{id}.control      FlushCache, KvSnapshotRequest
"""

import hashlib
import re
from dataclasses import dataclass

TOKENIZER_GROUP = "tokenizers"

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def subject_token(name: str) -> str:
    """`name` as one subject token: itself if it is plain, else a readable stem and a hash of the whole."""
    if _TOKEN.fullmatch(name):
        return name
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40]
    return f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Subjects:
    """Subjects under one namespace, so that several meshes can share a NATS server."""

    namespace: str = "radixmesh"

    def submit(self, model: str) -> str:
        return f"{self.namespace}.submit.{subject_token(model)}"

    def replica_inbox(self, replica_id: str) -> str:
        return f"{self.namespace}.replica.{subject_token(replica_id)}.inbox"

    def replica_report(self, replica_id: str) -> str:
        return f"{self.namespace}.replica.{subject_token(replica_id)}.report"

    def replica_control(self, replica_id: str) -> str:
        return f"{self.namespace}.replica.{subject_token(replica_id)}.control"

    def group_claim(self, group_id: str) -> str:
        return f"{self.namespace}.group.{subject_token(group_id)}.claim"

    def group_plan(self, group_id: str) -> str:
        return f"{self.namespace}.group.{subject_token(group_id)}.plan"

    def detokenizer_inbox(self, detokenizer_id: str) -> str:
        return f"{self.namespace}.detokenizer.{subject_token(detokenizer_id)}.inbox"

    def gateway_inbox(self, gateway_id: str) -> str:
        return f"{self.namespace}.gateway.{subject_token(gateway_id)}.inbox"

    @property
    def cancel(self) -> str:
        return f"{self.namespace}.cancel"

    def presence(self, service: str = "*") -> str:
        return f"{self.namespace}.presence.{service}"

    def outdated(self, instance: str) -> str:
        return f"{self.namespace}.instance.{subject_token(instance)}.outdated"

    @property
    def who(self) -> str:
        return f"{self.namespace}.who"

    @property
    def kv_events(self) -> str:
        return f"{self.namespace}.kv_events"
