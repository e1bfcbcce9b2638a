"""Fail the image's build where what we install breaks what the base image has.

    python check_overlay.py ROOT [ROOT ...]

Our packages lie in a virtual environment in front of the base's. A package that is in both is ours from then on, for the base's
own programs too. So everything that the roots (tensorrt_llm) need, and all that those need, is looked up: where the base's own
version met a requirement and ours does not, that is said, and the status is 1. What the base never met is the base's business.
Run with the virtual environment's Python.
"""

import importlib.metadata
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def installed(folders: Iterable[str]) -> dict[str, Distribution]:
    """The distributions in these folders by normalised name; the first folder that has one wins, as for `import`."""
    found: dict[str, Distribution] = {}
    for folder in folders:
        for distribution in importlib.metadata.distributions(path=[folder]):
            if distribution.metadata["Name"]:  # what a removed package left behind has none
                found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution)
    return found


def requirements(distribution: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    """What it needs on this machine, with these extras."""
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras | {""}):
            yield requirement


def broken(base: Mapping[str, Distribution], ours: Mapping[str, Distribution], roots: Iterable[str]) -> list[str]:
    """What is amiss, in words; a root that the base lacks is: then it is not the image that we think it is."""
    problems: list[str] = []
    waiting = [(canonicalize_name(root), frozenset[str]()) for root in roots]
    problems += [f"the base image has no {name}" for name, _ in waiting if name not in base]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        if name not in base:
            continue
        for requirement in requirements(base[name], extras):
            needed = canonicalize_name(requirement.name)
            problems += _broken_by_us(base, ours, name, requirement)
            step = (needed, frozenset(requirement.extras))
            if step not in seen:
                seen.add(step)
                waiting.append(step)
    return problems


def _broken_by_us(
    base: Mapping[str, Distribution], ours: Mapping[str, Distribution], name: str, requirement: Requirement
) -> Iterator[str]:
    needed = canonicalize_name(requirement.name)
    if needed not in ours or needed not in base:
        return
    own, new = base[needed].version, ours[needed].version
    allows = requirement.specifier.contains
    if allows(own, prereleases=True) and not allows(new, prereleases=True):
        yield (
            f"{name} {base[name].version} needs {requirement}; the base image has {own}, and ours in front of it is {new}:"
            f" bound {needed} in requirements/gpu-constraints.txt, then `make lock`"
        )


def main(roots: list[str]) -> int:
    """Print what is broken."""
    ours = sysconfig.get_path("purelib")
    base = [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages")) and folder != ours]
    problems = broken(installed(base), installed([ours]), roots)
    for problem in problems:
        sys.stderr.write(f"check_overlay: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
