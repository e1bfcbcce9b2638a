"""What can go wrong with a document.

BadRequestError (tritonrag_client.errors)
└── UnreadableDocumentError     a file that can't be indexed as it is: what reaches users
ContentError                    the same without the file's name: what a format's reader raises
"""

from tritonrag_client.errors import BadRequestError


class ContentError(Exception):
    """The bytes at hand hold no readable document. The text is a predicate with the way out: "is empty; ..."."""


class UnreadableDocumentError(BadRequestError):
    """A file can't be read as a document. `path` is its name as given, `reason` what is wrong and what to do."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason
