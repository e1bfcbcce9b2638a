"""The public modules of the running Python's standard library, imported without side effects."""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Final

from tritonrag_export.documents.finding import OnSkip, Skipped

# Modules that are not imported (nor their submodules), and why.
_EXCLUDED: Final[Mapping[str, str]] = MappingProxyType({
    "antigravity": "opens a web browser when imported",
    "asyncio.windows_events": "is for Windows",
    "asyncio.windows_utils": "is for Windows",
    "distutils": "is shadowed by setuptools where that is installed, and removed from Python 3.12",
    "encodings": "holds tables, not documentation",
    "ensurepip": "is a program",
    "genericpath": "is documented as os.path",
    "idlelib": "is a program that opens windows",
    "imp": "repeats importlib, and is removed from Python 3.12",
    "lib2to3": "holds tables of a grammar, and is removed from Python 3.13",
    "multiprocessing.dummy": "repeats threading",
    "ntpath": "is documented as os.path",
    "posixpath": "is documented as os.path",
    "pydoc_data": "holds the topics, which are documents of their own",
    "readline": "changes the terminal when imported",
    "rlcompleter": "changes the terminal when imported",
    "test": "holds Python's own tests",
    "this": "prints when imported",
    "tkinter": "opens windows",
    "turtle": "opens windows",
    "turtledemo": "opens windows",
    "xml.etree.cElementTree": "repeats xml.etree.ElementTree",
    "xxlimited": "is an example of an extension module",
    "xxlimited_35": "is an example of an extension module",
    "xxsubtype": "is an example of an extension module",
})  # fmt: skip


def public_modules(on_skip: OnSkip) -> Iterator[tuple[str, ModuleType]]:
    """Name and module of each public module and submodule, in the order of names.

    Those left out are reported with the reason: `_EXCLUDED`, and what this build of Python or this machine can't import.
    Modules whose name begins with an underscore are private and not reported.
    """
    stack = sorted((name for name in sys.stdlib_module_names if not name.startswith("_")), reverse=True)
    while stack:
        name = stack.pop()
        if name in _EXCLUDED:
            on_skip(Skipped(path=f"pydoc:{name}", reason=_EXCLUDED[name]))
            continue
        module = _import(name, on_skip)
        if module is not None:
            yield name, module
            stack.extend(reversed(_submodules(name, module)))


def _import(name: str, on_skip: OnSkip) -> ModuleType | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated modules are documented too
            return importlib.import_module(name)
    except (ImportError, OSError, AttributeError) as error:  # what modules for other systems raise
        on_skip(Skipped(path=f"pydoc:{name}", reason=f"can't be imported here: {error}"))
        return None


def _submodules(name: str, module: ModuleType) -> list[str]:
    """The public submodules of a package. os.path, which is no submodule on disk, is one by name."""
    found = {f"{name}.{info.name}" for info in pkgutil.iter_modules(getattr(module, "__path__", ()))}
    if name == "os":
        found.add("os.path")
    return sorted(sub for sub in found if not sub.rpartition(".")[2].startswith("_") and not _is_test(sub))


def _is_test(name: str) -> bool:
    return name.rpartition(".")[2] in {"test", "tests", "idle_test"}
