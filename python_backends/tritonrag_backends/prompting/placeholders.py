"""Text with named placeholders, filled in literally: what is put in is never looked at for placeholders again."""

import string
from collections.abc import Mapping
from dataclasses import dataclass

from tritonrag_client.errors import BadRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Literal texts and names of placeholders in turn: `literals[0]`, `names[0]`, `literals[1]`, ...

    There is one literal more than names.
    """

    literals: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, *, allowed: frozenset[str], place: str) -> "Pattern":
        """Read `text` with `{name}`; `{{` and `}}` are braces. Raises BadRequestError that names `place` and the way out."""
        literals, names = [""], list[str]()
        try:
            for literal, name, spec, conversion in string.Formatter().parse(text):
                literals[-1] += literal
                if name is None:
                    continue
                if name not in allowed or spec or conversion:
                    raise BadRequestError(f"{place} has the placeholder {{{name}}}; {_way_out(allowed)}")
                names.append(name)
                literals.append("")
        except ValueError as error:
            raise BadRequestError(
                f"{place} has a lone brace ({error}); write {{{{ or }}}} for a brace that is none of a placeholder's"
            ) from None
        return cls(literals=tuple(literals), names=tuple(names))

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with each placeholder's value in its place."""
        filled = (literal + values[name] for literal, name in zip(self.literals, self.names, strict=False))
        return "".join(filled) + self.literals[-1]


def _way_out(allowed: frozenset[str]) -> str:
    names = ", ".join(f"{{{name}}}" for name in sorted(allowed))
    return f"use {names} as they stand" if names else "it takes none; write {{ and }} for braces"
