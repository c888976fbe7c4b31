"""Where the two processes listen, and the environment that tells them so.

`config.properties` and the state service's own default are the truth; an offset moves all ports
together, so that a second stack can run beside the first.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stack.torchserve import read_property

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
        return f"http://{self.host}:{self.port}"


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

        def http(name: str) -> Listener:
            url = urlsplit(setting(f"{name}_address"))
            if url.hostname is None or url.port is None:
                raise StackError(f"{name}_address must look like http://127.0.0.1:8080")
            return Listener(f"TorchServe {name}", url.hostname, url.port + offset)

        def grpc(name: str) -> Listener:
            host, port = setting(f"grpc_{name}_address"), int(setting(f"grpc_{name}_port"))
            return Listener(f"TorchServe gRPC {name}", host, port + offset)

        host = environment.get("STATE_HOST", STATE_HOST)
        port = int(environment.get("STATE_PORT", STATE_PORT)) + offset
        return cls(
            http("inference"),
            http("management"),
            http("metrics"),
            grpc("inference"),
            grpc("management"),
            Listener("state service", host, port),
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
            "HANDLER_STATE_URL": self.state.url,
        }

    def check_free(self) -> None:
        """Raise `StackError` naming the first port that something else listens on."""
        for name in self.__slots__:
            listener: Listener = getattr(self, name)
            with socket.socket() as probe:
                # As servers do: a port that only waits for old connections to die is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((listener.host, listener.port))
                except OSError as error:
                    raise StackError(
                        f"port {listener.port} ({listener.purpose}) cannot be used: "
                        f"{error.strerror}; stop what listens there, or move all ports: "
                        "make run PORT_OFFSET=100"
                    ) from error
