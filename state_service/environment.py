"""Which variables of the environment are settings. Pure.

Kubernetes gives every container variables that name the Services of its namespace, in the form of
Docker's old links: https://kubernetes.io/docs/tutorials/services/connect-applications-service/ and
https://docs.docker.com/engine/network/links/. For a Service `state` or `state-service` they begin
as our settings do. `handler/environment.py` is the same: the programs share no code.
"""

import re
from collections.abc import Mapping

_ADDRESS = r"[0-9A-Fa-f.:]+"
_LINK = r"(tcp|udp|sctp)://\S+"
_INJECTED = re.compile(
    rf"""[A-Z][A-Z0-9_]*_(
        SERVICE_HOST={_ADDRESS}
      | SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]+
      | PORT={_LINK}
      | PORT_[0-9]+_(TCP|UDP|SCTP)={_LINK}
      | PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO=(tcp|udp|sctp)
      | PORT_[0-9]+_(TCP|UDP|SCTP)_PORT=[0-9]+
      | PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR={_ADDRESS}
    )""",
    re.VERBOSE,
)


def given(environment: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return the variables that begin with the prefix and that somebody has set on purpose.

    >>> given({"STATE_PORT": "tcp://10.0.0.1:8090", "STATE_HOST": "::1", "PATH": "/"}, "STATE_")
    {'STATE_HOST': '::1'}
    """
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(prefix) and not _INJECTED.fullmatch(f"{name}={value}")
    }
