"""What people see of `radixmesh serve`: lines, one progress bar, the banner."""

import contextlib
import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

BAR = 30
"""Characters."""


class Terminal:
    """Lines on a stream, with at most one bar below them if it is a terminal.

    A stream that has gone away (a closed terminal, a broken pipe) is no reason for the mesh to end.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.interactive = self._stream.isatty()
        self._bar = ""

    def say(self, text: str) -> None:
        """Prints lines above the bar."""
        self._write(f"{self._erase()}{text}\n{self._bar}")

    def bar(self, fraction: float, text: str) -> None:
        """Shows the bar, in place of the one before. Does nothing where there is no terminal."""
        if not self.interactive:
            return
        full = round(max(0.0, min(1.0, fraction)) * BAR)
        line = f"{fraction:4.0%} |{'█' * full}{' ' * (BAR - full)}| {text}"
        erase = self._erase()
        self._bar = line[: shutil.get_terminal_size().columns - 1]
        self._write(erase + self._bar)

    def no_bar(self) -> None:
        erase, self._bar = self._erase(), ""
        self._write(erase)

    def _erase(self) -> str:
        return "\r\033[K" if self._bar else ""

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


@dataclass(frozen=True, slots=True)
class Banner:
    """What is told once the mesh serves."""

    model: str
    urls: list[str]
    """HTTP, one for each gateway."""
    grpc: list[str]
    chat: bool
    """The model has a chat template."""
    api_key: bool
    """Requests need a key."""
    key_in_shell: bool
    """It was found where the curl line will look for it, in $RADIXMESH_API_KEY."""
    logs: Path
    seconds: float
    """From the start until now."""

    def __str__(self) -> str:
        lines = [f"RadixMesh serves {self.model}; ready after {self.seconds:.1f} s."]
        lines += ["", f"  HTTP   {'  '.join(self.urls)}   (OpenAI's API under /v1)"]
        if self.grpc:
            lines.append(f"  gRPC   {'  '.join(self.grpc)}")
        lines += [f"  logs   {self.logs}", "  stop   Ctrl-C", ""]
        if self.api_key and not self.key_in_shell:
            lines += ["Try, with your API key for KEY:", "", "  export RADIXMESH_API_KEY=KEY"]
        else:
            lines += ["Try:", ""]
        lines += [f"  {self.curl()}", ""]
        return "\n".join(lines)

    def curl(self) -> str:
        """A command that can be pasted into a shell."""
        body: dict[str, object] = {"model": self.model}
        if self.chat:
            path, body["messages"] = "chat/completions", [{"role": "user", "content": "Hello!"}]
        else:
            path, body["prompt"] = "completions", "Once upon a time"
        body["max_tokens"] = 32
        # $RADIXMESH_API_KEY is for the reader's shell to fill in: the key itself belongs into no log.
        key = ' -H "Authorization: Bearer $RADIXMESH_API_KEY"' if self.api_key else ""
        quoted = shlex.quote(json.dumps(body, ensure_ascii=False))
        return f"curl {self.urls[0]}/v1/{path} -H 'Content-Type: application/json'{key} -d {quoted}"
