"""The source tree keeps the rules of tests/architecture.py; each rule is shown a small bad sample to refuse."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import sabot
from tests import architecture

ROOT = Path(__file__).parent.parent
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
PUBLIC = {
    *("AgentContext", "TaskSlotManager", "Morsel", "MorselSource", "MorselResult", "MorselExecutor", "MorselOperator"),
    *("ShuffleTransport", "ShuffleServer", "ShuffleClient", "connect", "LocalCluster", "Dataset"),
}


def files(*patterns: str) -> dict[str, str]:
    """Path from the root -> text of the hand-written files that match."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if not GENERATED.search(path.name)}
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(found) if path.is_file()}
    assert texts, f"nothing matches {patterns}"
    return texts


def module_of(path: str) -> str:
    """sabot/slots/__init__.py -> sabot.slots.__init__, so that its relative imports start at sabot.slots."""
    return path.removesuffix(".py").replace("/", ".")


def all_problems(check: Callable[[str, str], list[str]], texts: dict[str, str]) -> list[str]:
    return [problem for path, text in texts.items() for problem in check(text, path)]


PYTHON = ("sabot/**/*.py",)
CODE = (*PYTHON, "sabot/**/*.pyx", "sabot/**/*.pxi", "sabot/**/*.cc", "sabot/**/*.h")
TESTS = ("tests/**/*.py", "benchmarks/**/*.py", "examples/**/*.py", "scripts/**/*.py")
DOCUMENTS = ("*.md", "docs/**/*.md")
RULES = {"tests/architecture.py", "tests/test_architecture.py"}  # they name what they ban


def test_imports_follow_the_arrows_between_houses() -> None:
    houses = {path: text for path, text in files(*PYTHON).items() if path != "sabot/__init__.py"}
    assert all_problems(lambda text, path: architecture.arrow_problems(text, module_of(path)), houses) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("sabot.slots.pool", "from sabot.shuffle import transport"),
        ("sabot.shuffle.transport", "import sabot.slots"),
        ("sabot.client.session", "from sabot.agent.context import AgentContext"),
        ("sabot.shuffle.transport", "from ..slots import Morsel"),
        ("sabot.slots.__init__", "from ..agent import daemon"),
        ("sabot.errors", "import sabot.wire.failure as f\nimport sabot.client"),
        ("sabot.dataflow.plan", "if TYPE_CHECKING:\n    from sabot.client import Session"),
        ("sabot.agent.coordination.coordinator", "from sabot.agent.jobs.job_run import JobRun"),
        ("sabot.agent.tasks.joins", "from sabot.agent import daemon"),
        ("sabot.agent.daemon", "def late():\n    import sabot"),
        ("sabot.unknown.part", "import sabot.slots"),
    ],
)
def test_import_against_an_arrow_is_found(module: str, line: str) -> None:
    assert len(architecture.arrow_problems(line, module)) == 1


def test_import_along_an_arrow_is_allowed() -> None:
    text = "from ..native import _native\nfrom sabot.errors import UsageError\nfrom . import morsel\nimport pyarrow"
    assert architecture.arrow_problems(text, "sabot.slots.manager") == []


def test_dataflow_and_coordination_are_pure() -> None:
    modules = files("sabot/dataflow/**/*.py", "sabot/agent/coordination/*.py")
    assert all_problems(lambda text, path: architecture.purity_problems(text, module_of(path)), modules) == []


@pytest.mark.parametrize(
    "line",
    ["import threading", "from os import path", "import pyarrow.parquet as pq", "from pyarrow import fs", "open('x')"],
)
def test_impure_module_is_found(line: str) -> None:
    assert len(architecture.purity_problems(line, "sabot.dataflow.plan")) == 1


def test_only_the_configuration_reads_the_environment() -> None:
    modules = {path: text for path, text in files(*PYTHON).items() if not path.startswith("sabot/config")}
    assert all_problems(architecture.environment_problems, modules) == []


@pytest.mark.parametrize("line", ["os.getenv('X')", "os.environ.get('X')", "x = os.environ['X']", "'X' in os.environ"])
def test_read_of_the_environment_is_found(line: str) -> None:
    assert len(architecture.environment_problems(line, "sabot/agent/x.py")) == 1


def test_files_and_functions_are_short() -> None:
    assert all_problems(architecture.length_problems, files(*CODE, *TESTS)) == []


def test_file_that_is_too_long_is_found() -> None:
    assert len(architecture.length_problems("x = 1\n" * 401, "sabot/x.py")) == 1
    assert architecture.length_problems("x = 1\n" * 400, "sabot/x.py") == []


LONG_BODY = 70
LONG_FUNCTIONS = {
    "x.py": "class A:\n    def long(self):\n" + "        x = 1\n" * LONG_BODY,
    "x.pyx": "cdef class A:\n    cdef int long(self) except -1 nogil:\n"
    + "        x = 1\n" * LONG_BODY
    + "\n    def b(self): pass\n",
    "x.pxi": "def long(\n    int a,\n):\n" + "    x = 1\n" * LONG_BODY,
    "x.cc": "namespace a {\nint Pool::long(int x) const noexcept {\n"
    + "  f([] { return '{'; });  // {\n" * LONG_BODY
    + "}\n}\n",
    "x.h": "template <typename T>\nclass A : public B {\n public:\n  A() : x_{1} {}\n  int long(int a,\n    int b) {\n"
    + "    if (a) { b = 1'000; }\n" * LONG_BODY
    + "  }\n};\n",
}


@pytest.mark.parametrize("path", LONG_FUNCTIONS)
def test_function_that_is_too_long_is_found(path: str) -> None:
    problems = architecture.length_problems(LONG_FUNCTIONS[path], path)
    assert len(problems) == 1, problems
    assert ": long has 7" in problems[0]


@pytest.mark.parametrize("path", LONG_FUNCTIONS)
def test_function_of_seventy_lines_is_allowed(path: str) -> None:
    lines = LONG_FUNCTIONS[path].splitlines(keepends=True)
    body = max(set(lines), key=lines.count)
    shorter = LONG_FUNCTIONS[path].replace(body, "", 6)
    assert architecture.length_problems(shorter, path) == []


def test_module_names_say_what_is_inside() -> None:
    assert [problem for path in files(*CODE, *TESTS) for problem in architecture.name_problems(path)] == []


@pytest.mark.parametrize("path", ["sabot/utils.py", "sabot/common/x.py", "sabot/native/base.h", "tests/helpers.py"])
def test_name_that_says_nothing_is_found(path: str) -> None:
    assert len(architecture.name_problems(path)) == 1


def test_code_has_no_banned_words() -> None:
    texts = {path: text for path, text in files(*CODE, *TESTS).items() if path not in RULES}
    assert all_problems(architecture.word_problems, texts) == []


@pytest.mark.parametrize(
    "line", ["shm_open(name)", "# TODO: later", "worker_.detach();", "from unittest.mock import Mock"]
)
def test_banned_word_is_found(line: str) -> None:
    assert len(architecture.word_problems(line, "sabot/x.py")) == 1


def test_tests_do_not_sleep() -> None:
    texts = {path: text for path, text in files("tests/**/*.py").items() if path not in RULES}
    assert all_problems(architecture.sleep_problems, texts) == []


@pytest.mark.parametrize("line", ["time.sleep(0.1)", "await asyncio.sleep(1)"])
def test_sleep_in_a_test_is_found(line: str) -> None:
    assert len(architecture.sleep_problems(line, "tests/x.py")) == 1


def test_modules_open_with_what_they_are_for() -> None:
    assert all_problems(architecture.docstring_problems, files(*PYTHON, *TESTS)) == []


def test_module_without_docstring_is_found() -> None:
    assert len(architecture.docstring_problems("x = 1\n", "sabot/x.py")) == 1


def test_public_names_are_those_of_the_design() -> None:
    assert set(sabot.__all__) == PUBLIC
    assert len(sabot.__all__) == len(PUBLIC)
    assert all(getattr(sabot, name) is not None for name in sabot.__all__)


def test_every_runtime_dependency_has_its_reason() -> None:
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert architecture.dependency_problems(requirements, (ROOT / "ARCHITECTURE.md").read_text()) == []


def test_dependency_without_a_reason_is_found() -> None:
    text = "## Dependencies\n| `click` | the command line |\n## Other\n| `redis` | none |\n"
    assert architecture.dependency_problems(["click>=8", "redis[x]>=5"], text) == [
        "ARCHITECTURE.md does not say why Sabot needs redis"
    ]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def agent_commands() -> set[str]:
    from sabot.cli.main import cli

    return set(cli.commands)


def test_commands_in_the_documents_exist() -> None:
    known = {"make_targets": make_targets(), "agent_commands": agent_commands()}
    texts = files(*DOCUMENTS)
    assert all_problems(lambda text, path: architecture.command_problems(text, path, **known), texts) == []
    assert {"demo", "test"} <= {target for target in make_targets() if f"make {target}" in texts["README.md"]}


@pytest.mark.parametrize(
    "text", ["```bash\nmake fly\n```\n", "run `make fly`", "```bash\nsabot-agent fly --high\n```\n"]
)
def test_command_that_does_not_exist_is_found(text: str) -> None:
    assert len(architecture.command_problems(text, "README.md", make_targets={"demo"}, agent_commands={"start"})) == 1


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = [
        f"{path}: {target}"
        for path, text in files(*DOCUMENTS).items()
        for target in architecture.links_of(text)
        if not (ROOT / path).parent.joinpath(target).exists()
    ]
    assert broken == []


def test_links_are_read_from_a_document() -> None:
    text = "[a](docs/a.md#part) [b](https://example.org) [c](#here)\n```\n[d](no)\n```\n"
    assert architecture.links_of(text) == ["docs/a.md"]


def test_architecture_document_is_short() -> None:
    assert (ROOT / "ARCHITECTURE.md").read_text().count("\n") <= 200
