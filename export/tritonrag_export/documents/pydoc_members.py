"""What a module or class documents itself: public members with docstrings and signatures."""

import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from tritonrag_export.documents.text import scrub

_ADDRESS: Final = re.compile(r" at 0x[0-9A-Fa-f]+")
_LONGEST_SIGNATURE: Final = 400
# Docstrings that Python's own tools write by themselves and that say nothing of the thing at hand.
_BOILERPLATE: Final = re.compile(r"Alias for field number \d|See PEP 435 for details|An enumeration\.$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A documented class, function, method or property. `depth` is 1 in a module, 2 in a class of it, and so on."""

    name: str
    qualified_name: str
    depth: int
    signature: str  # "" where there is none to be had
    docstring: str  # "" for a class that only its members document


def docstring_of(thing: object) -> str:
    """The thing's own docstring, not an inherited one, with indentation removed; "" where there is none.

    A class's goes on with that of its `__init__`.
    """
    if not inspect.isclass(thing):
        return _clean(getattr(thing, "__doc__", None))
    own = vars(thing)
    # Where __init__ is no Python function, its docstring is the same sentence for every class.
    init = getattr(own.get("__init__"), "__doc__", None) if inspect.isfunction(own.get("__init__")) else None
    return "\n\n".join(filter(None, (_clean(own.get("__doc__")), _clean(init))))


def members(name: str, module: ModuleType, seen: set[int]) -> Iterator[Member]:
    """The members of a module: functions, then classes, each followed by its own; in the order of names.

    `seen` holds the ids of what was given before: what several modules export comes once. Functions come first so that
    one like random.shuffle, which is a method of a hidden instance, comes under the name that people call it by.
    """
    offered = _offered(module)
    for member_name, thing in offered:
        if inspect.isroutine(thing):
            yield from _routine(thing, member_name, f"{name}.{member_name}", 1, seen)
    for member_name, thing in offered:
        if inspect.isclass(thing):
            yield from _class_members(thing, member_name, f"{name}.{member_name}", seen)


def _offered(module: ModuleType) -> list[tuple[str, object]]:
    """Names and objects that a module offers: what it lists, else what it defines under a public name."""
    listed = getattr(module, "__all__", None)
    if listed is None:
        own = sorted(vars(module).items())
        return [(name, thing) for name, thing in own if not name.startswith("_") and _is_defined_in(module, thing)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # looking at a deprecated member warns
        return [(name, getattr(module, name, None)) for name in sorted(set(listed)) if not name.startswith("_")]


def _is_defined_in(module: ModuleType, thing: object) -> bool:
    """Whether the thing is the module's own: from its code, its submodules, or its private half in C (`_bisect`)."""
    origin = getattr(thing, "__module__", None) or ""
    return module.__name__ in {origin, "builtins"} or origin.startswith((f"{module.__name__}.", "_"))


def _clean(docstring: object) -> str:
    if not isinstance(docstring, str) or _BOILERPLATE.match(docstring):
        return ""
    return scrub(inspect.cleandoc(docstring))


def _class_members(cls: type, name: str, qualified_name: str, seen: set[int], depth: int = 1) -> Iterator[Member]:
    """The class, then its own methods, properties and classes; nothing where neither it nor they are documented."""
    if id(cls) in seen:
        return
    seen.add(id(cls))
    inner: list[Member] = []
    for inner_name, thing in sorted(vars(cls).items()):
        inner_qualified = f"{qualified_name}.{inner_name}"
        if inner_name.startswith("_") or not _is_own(cls, thing):
            continue
        if inspect.isclass(thing):
            inner += _class_members(thing, inner_name, inner_qualified, seen, depth + 1)
        elif (
            inspect.isroutine(thing) or isinstance(thing, classmethod | staticmethod) or inspect.isdatadescriptor(thing)
        ):
            inner += _routine(thing, inner_name, inner_qualified, depth + 1, seen)
    docstring = docstring_of(cls)
    if docstring or inner:
        signature = _signature(cls, qualified_name)
        yield Member(name=name, qualified_name=qualified_name, depth=depth, signature=signature, docstring=docstring)
        yield from inner


def _is_own(cls: type, thing: object) -> bool:
    """Whether a class's attribute was made in the class's body, and is no function or class from elsewhere that it refers to."""
    name = getattr(thing, "__qualname__", None)
    if not isinstance(name, str):
        return True  # a property
    return name.startswith(f"{cls.__qualname__}.") if inspect.isclass(thing) else "." in name


def _routine(thing: object, name: str, qualified_name: str, depth: int, seen: set[int]) -> Iterator[Member]:
    thing = getattr(thing, "__func__", thing)
    docstring = docstring_of(thing)
    if docstring and id(thing) not in seen:
        seen.add(id(thing))
        signature = _signature(thing, qualified_name)
        yield Member(name=name, qualified_name=qualified_name, depth=depth, signature=signature, docstring=docstring)


def _signature(thing: object, qualified_name: str) -> str:
    """`json.loads(s, *, cls=None, ...)`; the bare name for what is not called, or has no signature that Python can tell."""
    if not callable(thing):
        return qualified_name
    try:
        parameters = str(inspect.signature(thing))
    except (
        ValueError,
        TypeError,
        AttributeError,
    ):  # the last for defaults that are constants of an uninitialised _curses
        return f"{qualified_name}(...)"
    parameters = _ADDRESS.sub("", parameters)
    return qualified_name + (parameters if len(parameters) <= _LONGEST_SIGNATURE else "(...)")
