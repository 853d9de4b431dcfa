"""The native benchmarks: builds one of benchmarks/native, runs it and gives the lines that it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def lines_of(target: str, *arguments: object) -> list[tuple[str, str]]:
    """The facts that `target` prints, each a name and its value with a unit; none where it cannot be built."""
    binary = built(target)
    if binary is None:
        return []
    command = [str(binary), *map(str, arguments)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [(name, value) for name, _, value in (line.partition("\t") for line in printed.splitlines())]


def built(target: str) -> Path | None:
    """The binary of `target`, built now; None, with the reason printed, where it cannot be."""
    root = Path(__file__).resolve().parent.parent
    build = root / "build" / "benchmarks"
    cmake = str(Path(sys.executable).with_name("cmake"))
    configure = [cmake, "-S", str(root), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", "-DSABOT_BENCHMARKS=ON"]
    configure.append(f"-DPython_EXECUTABLE={sys.executable}")
    for command in (configure, [cmake, "--build", str(build), "--target", target]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"native part not measured: {' '.join(command)} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            return None
    return next(path for path in build.rglob(target) if path.is_file())
