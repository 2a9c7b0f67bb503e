"""What this machine has: cores, accelerators, memory, free ports."""

import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from radixmesh.shared.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Machine:
    cores: int
    """That this process may use."""
    accelerators: int
    """NVIDIA or AMD devices that this process may use."""
    free_gib: float
    """Memory that can be had now."""


def look() -> Machine:
    return Machine(cores(), accelerators(), free_gib())


def cores() -> int:
    """Cores this process may use: the affinity mask and the container's CPU quota count, not the machine's size."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(mask, int(quota) // int(period)))
    except (OSError, ValueError):  # no such controller, or "max": no quota
        return mask


def accelerators() -> int:
    """Counts devices without loading a driver's library, which would take seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    nvidia = sum(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia*"))
    return nvidia or sum(1 for _ in Path("/sys/class/kfd/kfd/topology/nodes").glob("*/mem_banks/0"))


def free_gib() -> float:
    """Memory that can be had without swapping; 0 if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) / (1 << 20)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now."""
    with socket.create_server((host, 0), family=_family(host)) as probe:
        port: int = probe.getsockname()[1]
        return port


def require_host(host: str) -> None:
    """Raises ConfigError, with the reason, unless a server could listen at `host`."""
    try:
        socket.getaddrinfo(host, 0, _family(host), socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        free_port(host)
    except socket.gaierror as error:
        raise ConfigError(f"--host {host}: {error.strerror}") from None
    except UnicodeError:  # a part of more than 63 characters
        raise ConfigError(f"--host {host}: not a host name") from None
    except OSError as error:
        reason = "not an address of this machine" if error.errno == errno.EADDRNOTAVAIL else _reason(error)
        raise ConfigError(f"--host {host}: {reason}") from None


def require_free(host: str, port: int, flag: str) -> None:
    """Raises ConfigError, naming `port` and `flag`, unless a server could listen there now. See `require_host`."""
    try:
        # create_server sets SO_REUSEADDR, which forgives old connections, not a living listener.
        socket.create_server((host, port), family=_family(host)).close()
    except PermissionError as error:
        raise ConfigError(f"port {port} on {host} needs more rights ({flag})") from error
    except OSError as error:
        raise ConfigError(
            f"port {port} on {host} cannot be used: {_reason(error)}. Choose another one by {flag}"
        ) from error


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def connect_host(host: str) -> str:
    """The address by which a server that listens on `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
