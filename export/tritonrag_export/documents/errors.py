"""What can go wrong with a document.

BadRequestError (tritonrag_client.errors)
└── UnreadableDocumentError     a file that can't be indexed as it is: what reaches users
ContentError                    the same without the file's name: what a format's reader raises
FieldError                      a value in metadata, a side-car or a line of JSONL, without saying where that lies
"""

from tritonrag_client.errors import BadRequestError


class ContentError(Exception):
    """The bytes at hand hold no readable document. The text is a predicate with the way out: "is empty; ..."."""


class FieldError(Exception):
    """Something that describes a document can't be taken. The text names place, value and what was expected.

    Where it was read and what to do about it is for the catcher to add: 'year is "MM", expected a whole number'.
    """


class UnreadableDocumentError(BadRequestError):
    """A file can't be read as a document. `path` is its name as given, `reason` what is wrong and what to do."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason
