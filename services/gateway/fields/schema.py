"""What all schemas of requests have in common, and how they are read."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.fields.known import refuse
from radixmesh.shared.errors import RequestError

M = TypeVar("M", bound=BaseModel)


class Fields(BaseModel):
    """Strict: no strings for numbers, no NaN or infinity."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_means_left_out(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


def read_fields(schema: type[M], data: dict[str, Any]) -> M:
    """A request's fields. Raises RequestError, also for those that would change the answer and are not honoured."""
    refuse(data, schema)
    return validate(schema, data)


def validate(kind: type[M], data: object) -> M:
    """The fields as a `kind`. Raises RequestError, naming the field by its dotted path."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> RequestError:
    """The first thing that pydantic found wrong, with its dotted path as `param`."""
    found = error.errors(include_url=False, include_context=False)
    # A union reports one error per member; the one that got deepest is about the form that the client meant.
    first = max(found, key=lambda item: len(item["loc"])) if found else None
    if first is None:
        return invalid("the request is malformed")
    path = ".".join(str(part) for part in first["loc"] if not _is_union_tag(part))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        message = "this field is required"
    return invalid(f"{path}: {message}" if path else message, path or None)


def _is_union_tag(part: int | str) -> bool:
    """Pydantic names the tried member of a union in its path, as in `stop.list[str].0`."""
    return isinstance(part, str) and (part in ("str", "int", "float", "bool") or "[" in part or "(" in part)
