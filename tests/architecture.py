"""The rules of the source tree as functions: text in, problems out. Only test_architecture.py reads the tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

# Each house and those that it may import; the leaves are open to all.
LEAVES = {"errors", "config", "wire"}
HOUSES = {
    "cli": {"agent", "client", "dataflow", "shuffle", "slots", "native"},
    "agent": {"dataflow", "shuffle", "slots", "native"},
    "client": {"dataflow", "shuffle", "slots", "native"},
    "dataflow": {"native"},
    "shuffle": {"native"},
    "slots": {"native"},
    "native": set(),
    "errors": set(),
    "config": set(),
    "wire": set(),
}
# Inside the largest house: each room and those that it may import. What stands in none of them opens them all.
ROOMS_OF_AGENT = {
    "coordination": set(),
    "cluster": set(),
    "files": {"coordination"},
    "tasks": {"files"},
    "jobs": {"coordination", "cluster", "files", "tasks", "context"},
}
IMPURE_MODULES = {
    *(
        "asyncio",
        "concurrent",
        "fcntl",
        "glob",
        "grpc",
        "http",
        "io",
        "mmap",
        "multiprocessing",
        "os",
        "psutil",
        "queue",
    ),
    *("random", "secrets", "select", "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl"),
    *("subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid"),
    *("pyarrow.csv", "pyarrow.dataset", "pyarrow.feather", "pyarrow.flight", "pyarrow.fs", "pyarrow.parquet"),
}
BANNED_MODULE_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
BANNED_IN_CODE = {
    r"\bshm_open\b|\bshared_memory\b|/dev/shm": "POSIX shared memory outlives its makers: use sealed memfds",
    r"\bTODO\b|\bFIXME\b|\bXXX\b": "unfinished work stands in an issue, not in the code",
    r"\.detach\(\);?\s*$": "a detached thread cannot be waited for: keep it, or say on the line why not",
    r"\bunittest\.mock\b|\bMagicMock\b": "fakes, not mocks",
}


def imports_of(text: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that `module` imports, at any depth, for type checking too."""
    package = module.rsplit(".", 1)[0].split(".")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (start, node.module) if part)
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def _may_enter(module: str, target: list[str]) -> bool:
    """From one room of the agent to another, or to what stands in front of them."""
    room = module.split(".")[2]
    return room not in ROOMS_OF_AGENT or len(target) < 3 or target[2] in {room} | ROOMS_OF_AGENT[room]


def arrow_problems(text: str, module: str) -> list[str]:
    """Imports from house to house that the arrows do not allow."""
    house = module.split(".")[1]
    problems = []
    for line, name in imports_of(text, module):
        parts = name.split(".")
        if parts[0] != "sabot":
            continue
        target = parts[1] if len(parts) > 1 else "__init__"
        if target == house == "agent" and not _may_enter(module, parts):
            problems.append(f"{module}:{line}: {module.split('.')[2]} must not import {name}")
        if target == house or target in LEAVES or target in HOUSES.get(house, set()):
            continue
        problems.append(f"{module}:{line}: {house} must not import {name}")
    return problems


def purity_problems(text: str, module: str) -> list[str]:
    """What a pure module must not use: modules that do I/O, read a clock or start threads, and open()."""
    problems = [
        f"{module}:{line}: is pure and must not import {name}"
        for line, name in imports_of(text, module)
        if any(name == impure or name.startswith(impure + ".") for impure in IMPURE_MODULES)
    ]
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"open", "print", "input"}
        ):
            problems.append(f"{module}:{node.lineno}: is pure and must not call {node.func.id}()")
    return problems


def environment_problems(text: str, path: str) -> list[str]:
    """Reads of the environment, which only the configuration may make."""
    pattern = re.compile(r"\bos\.getenv\b|\bos\.environ\.get\b|\bos\.environ\[[^]]*\](?!\s*=[^=])|\bin os\.environ\b")
    return [
        f"{path}:{number}: reads the environment, which only sabot/config may"
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def length_problems(text: str, path: str) -> list[str]:
    """A file or functions that are too long."""
    problems = []
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        problems.append(f"{path}: {lines} lines, more than {FILE_LINES_MAX}")
    for name, line, length in functions_of(text, path):
        if length > FUNCTION_LINES_MAX:
            problems.append(f"{path}:{line}: {name} has {length} lines, more than {FUNCTION_LINES_MAX}")
    return problems


def functions_of(text: str, path: str) -> Iterable[tuple[str, int, int]]:
    """Name, first line and length of each function in a Python, Cython or C++ file."""
    match PurePosixPath(path).suffix:
        case ".py":
            return _python_functions(text)
        case ".pyx" | ".pxi":
            return _cython_functions(text)
        case ".cc" | ".h":
            return _cpp_functions(text)
    return ()


def _python_functions(text: str) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def _cython_functions(text: str) -> Iterator[tuple[str, int, int]]:
    lines = text.splitlines()
    head = re.compile(
        r"^(\s*)(?:async\s+)?(?:def|cdef|cpdef)\b(?!\s+(?:class|extern|enum|struct|cppclass)\b)[^=]*?(\w+)\s*\("
    )
    for start, line in enumerate(lines):
        found = head.match(line)
        if not found:
            continue
        last = start
        for number in range(start + 1, len(lines)):
            inside = lines[number].strip()
            indent = len(lines[number]) - len(lines[number].lstrip())
            if inside and indent <= len(found[1]) and not inside.startswith((")", "#")):
                break
            last = number if inside else last
        yield found[2], start + 1, last - start + 1


_CPP_NOISE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])\'|^[ \t]*#[^\n]*',
    re.DOTALL | re.MULTILINE,
)
_CPP_CONTAINER = re.compile(
    r"^(?:template\s*<.*>\s*)?(?:inline\s+|typedef\s+)?(?:namespace|class|struct|enum|union|extern)\b", re.DOTALL
)


def _cpp_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Blocks led by a parameter list, outside of every other such block: lambdas count as part of their function."""
    code = _CPP_NOISE.sub(lambda noise: "\n" * noise[0].count("\n"), text)
    line, header, depth, inside = 1, "", 0, 0
    name, first = "", 0
    for char in code:
        line += char == "\n"
        if char == "{":
            depth += 1
            called = re.search(r"([~\w]+|operator\W+)\s*\(", header)
            if not inside and called and not _CPP_CONTAINER.match(header.strip()) and not header.rstrip().endswith("="):
                inside, name, first = depth, called[1], line - header.lstrip().count("\n")
            header = ""
        elif char == "}":
            if depth == inside:
                yield name, first, line - first + 1
                inside = 0
            depth -= 1
            header = ""
        else:
            header = "" if char == ";" else header + char


def name_problems(path: str) -> list[str]:
    """Module and folder names that say nothing."""
    bad = {PurePosixPath(part).stem for part in PurePosixPath(path).parts} & BANNED_MODULE_NAMES
    return [f"{path}: the name {name} says nothing about what is inside" for name in sorted(bad)]


def word_problems(text: str, path: str) -> list[str]:
    """Things that must not stand in the code, each with the reason."""
    return [
        f"{path}:{number}: {reason}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, reason in BANNED_IN_CODE.items()
        if re.search(pattern, line)
    ]


def sleep_problems(text: str, path: str) -> list[str]:
    """Sleeps in a test: slow when they are long, wrong now and then when they are short."""
    return [
        f"{path}:{number}: sleeps; wait for a condition, an event or a fake clock"
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"\btime\.sleep\(|\basyncio\.sleep\((?!0\))", line)
    ]


def docstring_problems(text: str, path: str) -> list[str]:
    """A module that holds code and does not open with what it is for."""
    module = ast.parse(text)
    if module.body and not ast.get_docstring(module):
        return [f"{path}: opens without saying what it owns and promises"]
    return []


def dependency_problems(requirements: Iterable[str], architecture: str) -> list[str]:
    """Runtime dependencies without a line under the heading Dependencies of ARCHITECTURE.md."""
    section = re.search(r"^## Dependencies\n(.*?)(?=^## |\Z)", architecture, re.MULTILINE | re.DOTALL)
    explained = set(re.findall(r"^\| `([\w-]+)` \|", section[1] if section else "", re.MULTILINE))
    names = [re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in requirements]
    return [f"ARCHITECTURE.md does not say why Sabot needs {name}" for name in names if name not in explained]


def command_problems(text: str, path: str, *, make_targets: set[str], agent_commands: set[str]) -> list[str]:
    """Commands in a document that do not exist."""
    problems = []
    for block in re.findall(r"^```(?:bash|sh|console|shell)\n(.*?)^```|`([^`\n]+)`", text, re.MULTILINE | re.DOTALL):
        for command in (line.strip().removeprefix("$ ") for line in "".join(block).splitlines()):
            words = command.split()
            if words[:1] == ["make"] and len(words) > 1 and words[1][0].islower() and words[1] not in make_targets:
                problems.append(f"{path}: the Makefile has no target {words[1]}")
            if (
                words[:1] == ["sabot-agent"]
                and len(words) > 1
                and words[1][0].islower()
                and words[1] not in agent_commands
            ):
                problems.append(f"{path}: sabot-agent has no command {words[1]}")
    return problems


def links_of(text: str) -> list[str]:
    """The relative link targets of a Markdown document, without their fragments."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [
        target.split("#")[0] for target in targets if "://" not in target and not target.startswith(("#", "mailto:"))
    ]
