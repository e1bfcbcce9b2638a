"""Tables on stdout: drawn on a terminal, columns of plain text where output is piped."""

import sys
from collections.abc import Sequence

from tritonrag.terminal import bold, write


def write_table(title: str, rows: Sequence[Sequence[str]], *, head: Sequence[str] = ()) -> None:
    """The title, the head if there is one, and the rows; nothing where there are no rows."""
    if not rows:
        return
    if sys.stdout.isatty():
        _draw(title, rows, head)
        return
    lines = [*([list(head)] if head else []), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    write(bold(title))
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        write(f"  {'  '.join(cells)}".rstrip())


def _draw(title: str, rows: Sequence[Sequence[str]], head: Sequence[str]) -> None:
    from rich.console import Console  # noqa: PLC0415 - loads only where there is a terminal
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title, title_justify="left", show_header=bool(head))
    for name in head or [""] * len(rows[0]):
        table.add_column(name)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
