"""Where the two processes listen, and the environment that tells them so.

`config.properties` and the state service's own default are the truth; an offset moves all ports
together, so that a second stack can run beside the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from handler.environment import given
from stack.files import read_property

_LAST_PORT = 65_535
STATE_HOST, STATE_PORT = "127.0.0.1", 8090


class StackError(Exception):
    """The stack cannot start or go on; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One port: what listens there and the variable that sets it."""

    purpose: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """The listener's address over HTTP."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """All ports of one stack."""

    inference: Listener
    management: Listener
    metrics: Listener
    grpc_inference: Listener
    grpc_management: Listener
    state: Listener

    @classmethod
    def load(cls, config: Path, environment: Mapping[str, str], offset: int = 0) -> "Addresses":
        """Read the ports from config.properties and the environment, which wins."""

        def setting(name: str) -> str:
            value = environment.get(f"TS_{name.upper()}") or read_property(config, name)
            if value is None:
                raise StackError(f"{config} does not set {name}")
            return value

        def listener(purpose: str, host: str, port: str) -> Listener:
            if not (port.isascii() and port.isdigit() and 0 < int(port) + offset <= _LAST_PORT):
                raise StackError(
                    f"{purpose}: port {port} with an offset of {offset} is not a port (1-65535)"
                )
            return Listener(purpose, host, int(port) + offset)

        def http(name: str) -> Listener:
            address = setting(f"{name}_address")
            url = urlsplit(address)
            try:
                usable = url.hostname is not None and url.port is not None
            except ValueError:
                usable = False
            if not usable or url.hostname is None:
                raise StackError(
                    f"{name}_address must look like http://127.0.0.1:8080, not {address}"
                )
            return listener(f"TorchServe {name}", url.hostname, str(url.port))

        def grpc(name: str) -> Listener:
            host, port = setting(f"grpc_{name}_address"), setting(f"grpc_{name}_port")
            return listener(f"TorchServe gRPC {name}", host, port)

        state = given(environment, "STATE_")
        return cls(
            http("inference"),
            http("management"),
            http("metrics"),
            grpc("inference"),
            grpc("management"),
            listener(
                "state service",
                state.get("STATE_HOST", STATE_HOST),
                state.get("STATE_PORT", str(STATE_PORT)),
            ),
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that put both processes on these ports."""
        return {
            "TS_INFERENCE_ADDRESS": self.inference.url,
            "TS_MANAGEMENT_ADDRESS": self.management.url,
            "TS_METRICS_ADDRESS": self.metrics.url,
            "TS_GRPC_INFERENCE_PORT": str(self.grpc_inference.port),
            "TS_GRPC_MANAGEMENT_PORT": str(self.grpc_management.port),
            "STATE_HOST": self.state.host,
            "STATE_PORT": str(self.state.port),
            "STATE_TORCHSERVE_URL": self.inference.url,
            "STATE_MANAGEMENT_URL": self.management.url,
        }
