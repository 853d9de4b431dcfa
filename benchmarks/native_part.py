"""The native benchmarks: builds one of benchmarks/native, runs it and gives the lines that it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def lines_of(target: str, *arguments: object) -> list[tuple[str, str]]:
    """The facts that `target` prints, each a name and its value with a unit; none, with the reason printed, where it
    cannot be built.
    """
    root = Path(__file__).resolve().parent.parent
    build = root / "build" / "benchmarks"
    cmake = str(Path(sys.executable).with_name("cmake"))
    configure = [cmake, "-S", str(root), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", "-DSABOT_BENCHMARKS=ON"]
    configure.append(f"-DPython_EXECUTABLE={sys.executable}")
    for command in (configure, [cmake, "--build", str(build), "--target", target]):
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            print(f"native part not measured: {' '.join(command)} failed\n{built.stdout[-2000:]}{built.stderr[-2000:]}")
            return []
    binary = next(path for path in build.rglob(target) if path.is_file())
    command = [str(binary), *map(str, arguments)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [(name, value) for name, _, value in (line.partition("\t") for line in printed.splitlines())]
