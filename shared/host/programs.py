"""Programs that others have installed on this machine."""

import os
import shutil


def which(name: str) -> str | None:
    """The absolute path of program `name`; None if there is none.

    Entries of ``PATH`` that are not absolute, as one colon too many makes, are passed over: they mean the current
    directory, where anybody's files may lie.
    """
    if os.path.dirname(name):
        return shutil.which(os.path.abspath(name))
    absolute = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(entry)]
    return shutil.which(name, path=os.pathsep.join(absolute))
