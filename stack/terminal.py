"""Taking Ctrl-C for ourselves when started by make in a terminal."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def own_foreground() -> Iterator[None]:
    """Be the terminal's foreground process group, as a shell's job is.

    Otherwise Ctrl-C would also interrupt the `make` that started us: it would report an error
    and a status of its own after a perfectly clean stop. Does nothing without a terminal, or in the
    background of one.
    """
    before = os.getpgrp()
    if not (sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == before):
        yield
        return
    # Handing the terminal back, as a background group by then, must not stop us; nor must
    # Ctrl-Z, which would leave the shell waiting for make and make waiting for us.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # a session leader cannot, and needs not
        os.setpgid(0, 0)
        os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(sys.stdin.fileno(), before)
