"""What schemathesis is told besides openapi.yaml: what a schema cannot say of a good request."""

from typing import Any

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

# Refusals of requests that fit their schemas: columns of several lengths, lengths in bytes, the
# window that is configured, what is no longer kept, 1.0 for the integer 1, and tokens that this
# service gives.
_BEYOND_SCHEMAS = (
    "must have one length",
    " bytes",
    "window must be more than 0 and at most",
    "they are kept from",
    "lies before what is kept",
    "stand in the place of",
    "since must not be later than until",
    "Expected `int`, got `float`",
    "page_token is not one",
)


@schemathesis.check
def good_requests_are_accepted(
    context: schemathesis.CheckContext,
    response: schemathesis.Response,
    case: "schemathesis.Case[Any]",
) -> bool | None:
    """Refuse refusals, but for those that a schema cannot foresee."""
    if response.status_code == 400:
        detail = response.json()["detail"]
        if any(reason in detail for reason in _BEYOND_SCHEMAS):
            return None
    accepted: bool | None = positive_data_acceptance(context, response, case)
    return accepted
