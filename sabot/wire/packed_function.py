"""A user's function in the form in which it travels: bytes that only a worker opens, and its name for messages."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle

from sabot.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFunction:
    """A pickled function. Whoever loads it runs its author's code."""

    name: str
    pickled: bytes

    def load(self) -> Callable[..., Any]:
        """The function; UsageError where what it needs is not there."""
        try:
            function: Callable[..., Any] = pickle.loads(self.pickled)
        except Exception as error:
            raise UsageError(
                f"the function {self.name} cannot be loaded here: {type(error).__name__}: {error}; send its module "
                "along (py_modules=), install it on the agents, or define the function in the script itself",
                function=self.name,
            ) from error
        return function


def pack_function(function: Callable[..., Any] | PackedFunction, name: str) -> PackedFunction:
    """`function` by value, unless it is in an importable module; UsageError where it holds what cannot travel."""
    if isinstance(function, PackedFunction):
        return function
    try:
        return PackedFunction(name=name, pickled=cloudpickle.dumps(function))
    except Exception as error:
        raise UsageError(
            f"the function {name} cannot be sent to a worker process: {error}; make such things (locks, files, "
            "connections) inside the function, or run it in the slots' threads (processes=False)",
            function=name,
        ) from error
