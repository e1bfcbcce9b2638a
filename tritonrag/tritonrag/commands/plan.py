"""`tritonrag plan`: what fits where, what limits it, and the settings for it."""

from pathlib import Path

import typer

from tritonrag.planning.planner import Plan, make_plan
from tritonrag.planning.report import (
    build_command,
    gpu_memory,
    headline,
    host_memory,
    limits,
    notes,
    placements,
    to_json,
)
from tritonrag.planning.request import PlanOptions, read_request
from tritonrag.planning.settings_file import environment_of, settings_lines, write_settings
from tritonrag.planning.tables import write_table
from tritonrag.terminal import bold, tell, write, write_json


def run(options: PlanOptions, *, output: Path | None, json: bool) -> None:
    """Print the plan and write its settings; ends in status 1 where what was asked for isn't reached."""
    plan = make_plan(read_request(options))
    if output is not None:
        write_settings(plan, output)
    if json:
        write_json(to_json(plan))
    else:
        _print(plan, written_to=output)
    if plan.problems:
        raise typer.Exit(1)


def _print(plan: Plan, *, written_to: Path | None) -> None:
    write(headline(plan))
    write()
    write_table("What runs where", placements(plan))
    write_table("Memory of the host", host_memory(plan))
    write_table("Memory of each GPU", gpu_memory(plan))
    rows = [(limit.what, limit.limit, limit.expected, limit.asked, limit.bound) for limit in limits(plan)]
    write_table("Limits", rows, head=("", "limit", "expected", "asked", "what binds"))
    for note in notes(plan):
        write(f"  {note}")
    for problem in plan.problems:
        write(f"{typer.style('does not fit', fg=typer.colors.RED)}: {problem}")
    if plan.nearest:
        write(plan.nearest)
    write(bold("Index"))
    write(f"  {build_command(plan)}")
    write(bold("Settings"))
    for line in settings_lines(environment_of(plan)):
        write(f"  {line}")
    if written_to is not None:
        tell(f"settings written to {written_to}")
