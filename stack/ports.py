"""Are a stack's ports free, and who has them if not."""

import contextlib
import dataclasses
import socket

import psutil

from stack.addresses import Addresses, Listener, StackError


def check_free(addresses: Addresses) -> None:
    """Raise `StackError` naming the first port that something else listens on."""
    for field in dataclasses.fields(addresses):
        listener: Listener = getattr(addresses, field.name)
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        with socket.socket(family) as probe:
            # As servers do: a port that only waits for old connections to die is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((listener.host, listener.port))
            except OSError as error:
                raise StackError(
                    f"port {listener.port} ({listener.purpose}) cannot be used: "
                    f"{error.strerror}{_listening_on(listener.port)}; stop what listens "
                    "there, or move all ports: make run PORT_OFFSET=100"
                ) from error


def _listening_on(port: int) -> str:
    """Name the process that listens on a port, as far as we may see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr[1:2] == (port,)
                and connection.pid
            ):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
