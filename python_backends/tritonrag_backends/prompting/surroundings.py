"""What stands before a bracket in a text that comes piece by piece: whether it is in code, and whether it is a subscript.

Code is between backticks: a span on one line, or from a run of three and more to a line that begins with as many. A single backtick
that is never closed counts until the end of its line. Outside, a bracket is a subscript where the word that it
touches reads like code: `x[1]`, `rows_2[1]`, `sys.argv[1]`, `f(x)[1]`, `a[0][1]`; not `place[1]`, `(see there)[1]` or `1990s[1]`.
"""

from typing import Final, Literal

_FENCE: Final = 3  # backticks; fewer end with the line
_APOSTROPHES: Final = "'\u2019"

_Word = Literal["", "letter", "word", "number", "code"]


class Surroundings:
    """Fed with one character after the other."""

    def __init__(self) -> None:
        self._run = 0  # backticks just seen
        self._run_at_start = False  # of its line
        self._span = 0  # length of the run that opened the code, 0 outside
        self._opened_here = False  # the code, on this line
        self._blank = True  # nothing on this line yet but white space and quotation marks of Markdown
        self._word: _Word = ""
        self._dotted = False  # the word is followed by a full stop, or goes on behind it
        self._glued: list[bool] = []  # for each open bracket whether it touched a word
        self._before_bracket: _Word = ""

    @property
    def in_code(self) -> bool:
        """Whether the character that was fed last is inside code."""
        return self._span > 0

    @property
    def is_subscript(self) -> bool:
        """Whether the [ that was fed last is one, or stands in code."""
        return self.in_code or self._before_bracket in {"letter", "code"}

    def feed(self, character: str) -> None:
        """Go on by one character."""
        if character == "`":
            self._run_at_start = self._blank if self._run == 0 else self._run_at_start
            self._run += 1
            self._blank, self._word, self._dotted = False, "", False
            return
        if self._run:
            self._end_run(character)
        if character == "\n":
            self._end_line()
        elif not (character.isspace() or character == ">"):
            self._blank = False
        if not self.in_code:
            self._go_on(character)

    def end_citation(self) -> None:
        """The [ that was fed last began a citation, which has ended."""
        self._glued.pop()
        self._word = ""

    def _end_run(self, behind: str) -> None:
        run, self._run = self._run, 0
        if not self.in_code:
            self._span, self._opened_here = run, True
        elif self._opened_here:
            self._span = 0 if run == self._span else self._span
        elif self._run_at_start and run >= self._span and behind.isspace():
            self._span = 0

    def _end_line(self) -> None:
        if self._span < _FENCE:
            self._span = 0
        self._opened_here, self._blank = False, True
        self._glued.clear()

    def _go_on(self, character: str) -> None:
        if character.isalnum() or character == "_":
            self._word, self._dotted = self._word_with(character), False
        elif character == "." and self._word:
            self._dotted = True
        elif character in "([":
            self._before_bracket = "" if self._dotted else self._word
            self._glued.append(bool(self._word))
            self._word, self._dotted = "", False
        elif character in ")]":
            self._word, self._dotted = "code" if self._glued and self._glued.pop() else "", False
        elif character in _APOSTROPHES and self._word in {"letter", "word"}:
            self._word, self._dotted = "word", False
        else:
            self._word, self._dotted = "", False

    def _word_with(self, character: str) -> _Word:
        """What kind of word it is with one character more. An identifier never begins with a digit."""
        word = self._word
        if word == "code" or character == "_":
            return "code"
        if not character.isalpha():
            return "number" if word in {"", "number"} else "code"
        if word == "":
            return "letter" if character.isascii() else "word"
        return "code" if self._dotted and word != "number" else "word"
