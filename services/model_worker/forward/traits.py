"""What everybody may know of a device."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceTraits:
    """As the device states them."""

    synchronous: bool
    """Results are there when a call returns, in memory that numpy reads: to look at one costs nothing. Elsewhere the
    host would have to wait for all that is queued."""
