"""Writes constraints.txt anew: `make lock`.

    python .ci/lock.py REPORT...      what `pip install --dry-run --report` wrote

Only names and versions go in, never where something came from: the same lock serves every index. A local version
(``2.13.0+cpu``) is cut to its public part, which any build of that release satisfies.
"""

import json
import sys
from pathlib import Path

HEAD = """\
# Every package of the environment that serves, checks and tests, at its exact version. Written by `make lock`. For pip
# these are constraints, so nothing is installed by them alone: `make serve`, `make test`, CI and Dockerfile use them.
# pyproject.toml keeps the wide bounds, for those who embed RadixMesh; `make test-latest` tests what these give today.
# Made with Python {python} on {platform}; packages that only another platform needs (torch's CUDA ones) are not locked.
"""
LOCK = Path(__file__).resolve().parents[1] / "constraints.txt"
OURS = "radixmesh"


def main() -> None:
    versions: dict[str, str] = {}
    for path in sys.argv[1:]:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        for item in report["install"]:
            found = item["metadata"]
            name = found["name"].lower().replace("_", "-").replace(".", "-")
            versions[name] = found["version"].partition("+")[0]
    versions.pop(OURS, None)
    where = report["environment"]
    platform = f"{where['sys_platform']}, {where['platform_machine']}"
    lines = (f"{name}=={version}\n" for name, version in sorted(versions.items()))
    LOCK.write_text(HEAD.format(python=where["python_version"], platform=platform) + "".join(lines), encoding="utf-8")
    print(f"{LOCK.name}: {len(versions)} packages")


if __name__ == "__main__":
    main()
