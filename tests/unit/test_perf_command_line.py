"""A page tells a command that anybody can run, and no folder of the machine that it was run on."""

from tritonrag_perf.command_line import told


def test_folders_are_everybodys_own() -> None:
    arguments = ["--index", "/home/me/index", "--clients", "1", "64", "--output", "/tmp/out"]  # noqa: S108 - not written to
    assert told("tritonrag_perf.x", arguments) == "python -m tritonrag_perf.x --index DIR --clients 1 64 --output DIR"
    assert told("tritonrag_perf.x", []) == "python -m tritonrag_perf.x"
