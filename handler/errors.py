"""What can be wrong with one request.

RequestError      the request is answered with its status and counts nothing
  400             the body or a header cannot be understood
  413             it is over a limit
  500             a fault here, or limits of the state service that are not the handler's
  503             scored but not stored, or perhaps stored; the code says which

What can be wrong with one *event* is not an exception: it is an `EventError` inside a 200
(see `decoding`), because a neighbour in the same request must not suffer from it.
"""

from http import HTTPStatus


def reason_phrase(status: int) -> str:
    """Return a status's name as RFC 9110 has it; Python before 3.13 has an older one for 413.

    >>> reason_phrase(413)
    'Content Too Large'
    """
    return "Content Too Large" if status == 413 else HTTPStatus(status).phrase


class RequestError(Exception):
    """One request's failure: `status` for HTTP, `code` for programs, `detail` for people."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail

    @property
    def title(self) -> str:
        """The status's reason phrase."""
        return reason_phrase(self.status)

    def bare(self) -> "RequestError":
        """Return this error to keep: without its traceback, whose frames hold it and the body.

        That is a cycle, and the body would stay in memory until the next garbage collection.
        """
        return type(self)(self.status, self.code, self.detail)


class ModelError(RuntimeError):
    """The model cannot be packed, built or used as the YAML says; the message names the fix."""
