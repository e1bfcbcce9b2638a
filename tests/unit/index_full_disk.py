"""A program for test_index_publication: changes an index under ever higher limits on the size of a file, until it works.

A program of its own because the limit holds for a whole process.
"""

import json
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from index_fakes import FakeEncoder, document, documents

from tritonrag_backends.index.merging import merge
from tritonrag_backends.index.operations import status, verify
from tritonrag_client.errors import RagError
from tritonrag_export.indexing import BuildOptions, add_documents, build_index

CHANGES: dict[str, Callable[[Path], object]] = {
    "build": lambda at: build_index(
        documents(40), [FakeEncoder()], at, options=BuildOptions(kind="hnsw", vectors="int8")
    ),
    "add": lambda at: add_documents([document(f"n{i}", f"new {i}") for i in range(60)], [FakeEncoder()], at),
    "merge": lambda at: merge(at, everything=True),
}
GROWTH = 1.25


def main() -> None:
    change, folder = CHANGES[sys.argv[1]], Path(sys.argv[2])
    build_index(documents(20), [FakeEncoder()], folder / "before", options=BuildOptions(kind="hnsw"))
    add_documents([document("e.md", "text e")], [FakeEncoder()], folder / "before")
    # The kernel would otherwise end the process; so it answers the write with an error, as a full disk does.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    found: dict[str, object] = {"refused": 0, "worked": 0}
    messages, problems = set(), []
    limit = 1.0
    while not found["worked"]:
        directory = folder / f"{limit:.0f}"
        if not directory.exists():
            shutil.copytree(folder / "before", directory)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        outcome = attempt(change, directory)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        found["worked" if outcome is None else "refused"] += 1  # type: ignore[operator]
        if outcome is not None:
            messages.add(outcome)
            if status(directory).manifest.index_version != 2:
                problems.append(f"{directory}: another version is live")
            problems += [f"left behind: {path}" for path in (directory / "staging").glob("segment-*")]
        problems += verify(directory)
        limit *= GROWTH
    sys.stdout.write(json.dumps({**found, "messages": sorted(messages), "problems": problems}))


def attempt(change: Callable[[Path], object], directory: Path) -> str | None:
    try:
        change(directory)
    except RagError as error:
        return re.sub(r"the index \S+ can't be written: .*", "the index can't be written", str(error))
    return None


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()
