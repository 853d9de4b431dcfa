"""How much memory the machine has, as a process in a container sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sabot.config.machine import BYTES_MIN, MEMORY_PART, default_memory_bytes_max, machine_memory_bytes

GiB = 1 << 30


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{GiB}\n"}, GiB),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": f"{GiB}",
                "sys/fs/cgroup/a/b/memory.max": "max",
            },
            GiB,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n2:memory:/docker/1\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GiB}",
            },
            GiB,
        ),
    ],
    ids=["version 2", "version 2, a parent's", "version 1, the host's path"],
)
def test_control_group_with_a_lower_limit_counts(tmp_path: Path, files: dict[str, str], limit: int) -> None:
    assert machine_memory_bytes(root=machine(tmp_path, files)) == limit


@pytest.mark.parametrize("text", ["max", "9223372036854771712", "nonsense"])
def test_without_a_lower_limit_it_is_the_physical_memory(tmp_path: Path, text: str) -> None:
    limited = machine(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": text})
    assert machine_memory_bytes(root=limited) == machine_memory_bytes(root=tmp_path / "nothing here") > GiB // 2


def test_agents_divide_their_part_and_each_gets_enough_to_run(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": str(GiB)})
    assert default_memory_bytes_max(root=root) == int(GiB * MEMORY_PART)
    assert default_memory_bytes_max(2, root=root) == int(GiB * MEMORY_PART / 2)
    assert default_memory_bytes_max(1000, root=root) == BYTES_MIN
