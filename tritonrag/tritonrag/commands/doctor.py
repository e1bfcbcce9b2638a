"""`tritonrag doctor`: what is well, what is amiss, and what to do about it."""

from pathlib import Path

import typer

from tritonrag.checks import Check
from tritonrag.machine_checks import machine_checks
from tritonrag.settings import STATE, settings_from
from tritonrag.terminal import write, write_json
from tritonrag.triton_checks import triton_checks

PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002, "health": 8003}
_COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def run(*, index: Path | None, embedder: Path | None, triton_dir: Path | None = None, json: bool) -> None:
    """Print a line for each check; ends in status 1 where one failed."""
    settings = settings_from(index=index, embedder=embedder)
    checks = [*machine_checks(STATE, PORTS), *triton_checks(settings, triton_dir)]
    if json:
        write_json({"checks": [_to_dict(check) for check in checks], "ok": not _failed(checks)})
    else:
        for check in checks:
            _print(check)
    if _failed(checks):
        raise typer.Exit(1)


def _failed(checks: list[Check]) -> bool:
    return any(check.status == "fail" for check in checks)


def _print(check: Check) -> None:
    write(f"{typer.style(f'{check.status:<4}', fg=_COLOURS[check.status])}  {check.name:<15} {check.found}")
    if check.advice:
        write(f"{'':<22}-> {check.advice}")


def _to_dict(check: Check) -> dict[str, str]:
    return {"name": check.name, "status": check.status, "found": check.found, "advice": check.advice}
