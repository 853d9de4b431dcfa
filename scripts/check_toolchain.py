"""Says, before a long build, what the machine lacks for it: Python 3.11, its headers and venv, a C++20 compiler.

Kept to what an old Python can read, so that an old Python is told what is wrong.
"""
# ruff: noqa: UP031, UP036, PTH110, PTH118

import os
import subprocess
import sys
import sysconfig

PROGRAM = "#include <concepts>\n#include <stop_token>\n#include <thread>\nint main() { std::jthread t([] {}); }\n"


def compiles(compiler):
    """True if `compiler` accepts a C++20 program."""
    command = [*compiler.split(), "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    try:
        return subprocess.run(command, check=False, input=PROGRAM.encode(), capture_output=True).returncode == 0
    except OSError:
        return False


def problems():
    """What is missing, each with what to do."""
    found = []
    if sys.version_info < (3, 11):
        version = ".".join(map(str, sys.version_info[:3]))
        found.append("Python 3.11 or newer is needed and this is %s: make PYTHON=python3.11" % version)
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        found.append("Python.h is missing: install Python's headers (Debian: apt-get install python3-dev)")
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        found.append("the module ensurepip is missing: install it (Debian: apt-get install python3-venv)")
    compiler = os.environ.get("CXX", "c++")
    if not compiles(compiler):
        found.append(
            "%s does not compile C++20: install g++ 11 or newer (Debian: apt-get install g++), or name one with CXX="
            % compiler
        )
    return found


if __name__ == "__main__":
    for problem in problems():
        print(problem, file=sys.stderr)
    sys.exit(1 if problems() else 0)
