"""Fields of messages that hold one element per sequence, and whole numbers that msgpack can carry."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer, PlainValidator


def _column(dtype: str) -> Any:
    """Pydantic annotation for a 1-D array of `dtype`; read-only and zero-copy when it comes from bytes."""
    wanted = np.dtype(dtype)

    def validate(value: object) -> NDArray[Any]:
        if isinstance(value, bytes):
            if len(value) % wanted.itemsize:
                raise ValueError(f"{len(value)} bytes are no whole number of {wanted.name}")
            return np.frombuffer(value, wanted)
        try:
            return np.ascontiguousarray(value, wanted).reshape(-1)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"not a column of {wanted.name}: {error}") from None

    return PlainValidator(validate), PlainSerializer(lambda array: array.tobytes(), return_type=bytes)


_I32, _U8, _U64, _F32 = (_column(dtype) for dtype in ("<i4", "|u1", "<u8", "<f4"))
Int32Column = Annotated[NDArray[np.int32], _I32[0], _I32[1]]
UInt8Column = Annotated[NDArray[np.uint8], _U8[0], _U8[1]]
UInt64Column = Annotated[NDArray[np.uint64], _U64[0], _U64[1]]
Float32Column = Annotated[NDArray[np.float32], _F32[0], _F32[1]]


Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
UInt64 = Annotated[int, Field(ge=0, lt=2**64)]


def empty_column(dtype: str) -> Any:
    return Field(default_factory=lambda: np.empty(0, dtype))
