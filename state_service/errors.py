"""Every way a request can fail, with its HTTP status and a stable code.

ServiceError
  InvalidRequestError     400  something in the request cannot be understood; names it
    HistoryError          400  a question about a time that is no longer kept
  UnauthorizedError       401  a token is needed, and the one given is none of ours
  ForbiddenError          403  the token does not suffice, or a page of another site asks
  ConflictError           409  what was asked for is being done already
  TooLargeError           413  over a limit of size
  ExpectationError        417  an Expect that cannot be met
  MisdirectedError        421  asked under a name that is not ours
  NotConfiguredError      501  a setting is missing that this needs
  BadGatewayError         502  TorchServe broke off: what it did is not known
  GatewayTimeoutError     504  TorchServe did not answer in time: likewise
  UnavailableError        503  try again later: restoring, stopping, or full
    CapacityError         503  the window is full; room comes back as it moves
    NotDurableError       503  the journal cannot be written, so nothing was taken

StorageError                   the database cannot be used; ends the process, at start or at the
end

Domain code raises these and never imports aiohttp; one middleware, in `problems`, renders them.
"""

from http import HTTPStatus


def reason_phrase(status: int) -> str:
    """Return a status's name as RFC 9110 has it; Python before 3.13 has an older one for 413.

    >>> reason_phrase(413)
    'Content Too Large'
    """
    return "Content Too Large" if status == 413 else HTTPStatus(status).phrase


class ServiceError(Exception):
    """A request's failure: `status` for HTTP, `code` for programs, the message for people.

    `limit` is the setting that it went beyond, if any: it is counted.
    """

    status = 500
    code = "internal_error"

    def __init__(self, detail: str, code: str | None = None, *, limit: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.limit = limit
        if code is not None:
            self.code = code


class InvalidRequestError(ServiceError):
    """Something in the request cannot be understood; the detail names it and the fix."""

    status = 400
    code = "invalid_request"


class HistoryError(InvalidRequestError):
    """The question reaches further back than scores are kept: the answer would not be exact."""

    code = "at_not_retained"


class UnauthorizedError(ServiceError):
    """No token, or none of ours; the answer carries WWW-Authenticate."""

    status = 401
    code = "unauthorized"


class ForbiddenError(ServiceError):
    """Known or not, whoever asks may not do this."""

    status = 403
    code = "forbidden"


class ExpectationError(ServiceError):
    """The request expects something that this service does not do."""

    status = 417
    code = "expectation_failed"


class MisdirectedError(ServiceError):
    """The request names a host that this service does not go by."""

    status = 421
    code = "misdirected_request"


class ConflictError(ServiceError):
    """It is being done already."""

    status = 409
    code = "conflict"


class TooLargeError(ServiceError):
    """Over a limit of size; the detail names the limit."""

    status = 413
    code = "too_large"


class NotConfiguredError(ServiceError):
    """It needs a setting that is empty; the detail names it."""

    status = 501
    code = "not_configured"


class BadGatewayError(ServiceError):
    """TorchServe broke off, or said what is no HTTP."""

    status = 502
    code = "torchserve_failed"


class GatewayTimeoutError(ServiceError):
    """TorchServe did not answer in time."""

    status = 504
    code = "torchserve_timeout"


class UnavailableError(ServiceError):
    """Not now; the answer carries Retry-After."""

    status = 503
    code = "unavailable"


class CapacityError(UnavailableError):
    """A bound on what is held in memory is reached; nothing of the request was applied."""

    code = "capacity"


class NotDurableError(UnavailableError):
    """The commit failed, for a full disk say; nothing of the request was applied."""

    code = "not_durable"


class StorageError(Exception):
    """The database file cannot be used; the message says why and what to do."""
