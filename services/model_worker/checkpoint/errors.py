"""What can be wrong with a model's files."""

from pathlib import Path

from radixmesh.shared import errors


class ModelLoadError(errors.ModelLoadError):
    """A model cannot be loaded; the message names the file and the field or tensor at fault."""

    def __init__(self, file: Path | str, subject: str, problem: str) -> None:
        """`subject` is the config field or the tensor; empty when the file as a whole is at fault."""
        where = f"{file}: {subject}" if subject else str(file)
        super().__init__(f"{where}: {problem}")
        self.file = str(file)
        self.subject = subject
        self.problem = problem
