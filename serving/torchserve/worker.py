"""Runs one of TorchServe's Python programs, and ends with the JVM that started it.

A worker that has not been connected yet when the JVM is killed would wait for ever.
"""

from __future__ import annotations

import os
import runpy
import sys

from slicewise.process import OWNER_VARIABLE, exit_with_owner


def main(arguments: list[str]) -> None:
    """Run the script ``arguments[0]`` with the rest, or Python itself with options."""
    if not arguments or arguments[0].startswith("-"):
        os.execv(sys.executable, [sys.executable, *arguments])
    owner = int(os.environ.get(OWNER_VARIABLE) or os.getppid())
    exit_with_owner(owner, lambda: os._exit(1))
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
