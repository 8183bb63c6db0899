"""Importing less of other packages than they import of themselves: a command should start soon."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any, cast


class _Outline(ModuleType):
    """A package whose modules can be imported, and whose own code runs when somebody asks it for more."""

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__
        if name.startswith("__") and name not in _PUBLIC:
            raise AttributeError(name)
        with inner["_reading"]:  # another thread waits for the whole package
            if name not in inner and find_spec(f"{self.__name__}.{name}"):
                return import_module(f"{self.__name__}.{name}")
            if name not in inner and "_read" not in inner:
                self._read = True  # what its own code asks meanwhile is not there yet
                try:
                    cast("Loader", inner["__spec__"].loader).exec_module(self)
                except BaseException:
                    del self._read
                    raise
                object.__setattr__(self, "__class__", ModuleType)  # what it is from now on
        if name not in inner:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return inner[name]


_PUBLIC = ("__version__", "__all__")


def outline(package: str) -> None:
    """Let a package's modules be imported without everything that its `__init__` imports.

    Whoever imports the package itself and uses it gets all of it, then.

    Args:
        package: Its name; nothing happens if it was imported before, or is not installed.
    """
    if package in sys.modules:
        return
    spec = find_spec(package)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    module.__class__ = _Outline
    module.__dict__["_reading"] = RLock()
    sys.modules.setdefault(package, module)


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Let a package seem not to be installed, unless it was imported before."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = cast("ModuleType", None)  # Python's own sign for "do not look for it"
    try:
        yield
    finally:
        del sys.modules[package]
