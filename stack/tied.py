"""`python -m stack.tied MODULE …`: run a module that ends when whoever started it is gone.

A `kill -9` of the launcher lets it stop nothing. On Linux the kernel sends SIGTERM to a process
tied to it, and so down to supervisord and the two it watches; each stops as it always does. Where
there is no such call, what is left behind is ended by the next start: see `leftovers`.

Whoever starts a tied process says in `STACK_PARENT` who it is. What the process itself finds as its
parent may be another already: it looks only once Python has started.
"""

import ctypes
import os
import runpy
import signal
import sys

PARENT = "STACK_PARENT"
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have SIGTERM sent to this process when its parent dies; kept when it becomes another."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before that
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Become the module; its own arguments follow its name."""
    end_with_parent(int(os.environ[PARENT]))
    os.environ[PARENT] = str(os.getpid())  # for what this one starts in turn
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
