"""What a handled message leads to: messages for gateways and replicas, gathered so that each gets one."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from radixmesh.services.detokenizer.rows import TextRows
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import Cancel, Message, OpenText, RequestFailed
from radixmesh.shared.subjects import Subjects


@dataclass(slots=True)
class Outgoing:
    """Rows by gateway, failures by gateway, cancelled ``(request_id, choice, attempt)`` by replica."""

    rows: dict[str, TextRows] = field(default_factory=dict)
    failures: list[tuple[str, RequestFailed]] = field(default_factory=list)
    cancelled: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)

    def rows_for(self, gateway_id: str) -> TextRows:
        """Where to add a row for that gateway."""
        rows = self.rows.get(gateway_id)
        if rows is None:
            rows = self.rows[gateway_id] = TextRows()
        return rows

    def fail(self, opened: OpenText, code: ErrorCode, message: str, retry_after: float | None = None) -> None:
        """Ends the request that `opened` began."""
        failed = RequestFailed(
            request_id=opened.request_id,
            attempt=opened.attempt,
            code=code,
            message=message,
            retry_after=retry_after,
            service="detokenizer",
        )
        self.failures.append((opened.gateway_id, failed))

    def cancel(self, replica_id: str, request_id: str, choice: int, attempt: int) -> None:
        """Tells a replica that nobody waits for a choice (-1: for any of the request's)."""
        entries = self.cancelled.setdefault(replica_id, [])
        if (request_id, choice, attempt) not in entries:
            entries.append((request_id, choice, attempt))

    def messages(self, subjects: Subjects, detokenizer_id: str) -> Iterator[tuple[str, Message]]:
        """Subject and message, in the order in which they are to go out: text before failures."""
        for gateway_id, rows in self.rows.items():
            yield subjects.gateway_inbox(gateway_id), rows.build(detokenizer_id)
        for gateway_id, failed in self.failures:
            yield subjects.gateway_inbox(gateway_id), failed
        for replica_id, entries in self.cancelled.items():
            yield subjects.replica_inbox(replica_id), Cancel.of(*entries)
