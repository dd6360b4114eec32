"""Runs `momos` with many arguments, each in a fork of one process that has imported it.

Takes a JSON list of (arguments, where standard output goes, where standard error goes, encoding
of the terminal) and prints the exit codes; "closed" is a pipe that nobody reads.
"""

import io
import json
import os
import sys
import traceback

from momos.cli import main

FAULT = 99  # an exception that ends in a traceback


def run(arguments: list[str], output: str, error: str, encoding: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    if output == "closed":
        unread, descriptor = os.pipe()
        os.close(unread)
    else:
        descriptor = os.open(output, flags)
    os.dup2(descriptor, 1)
    os.dup2(os.open(error, flags), 2)
    sys.stdout, sys.stderr = stream(1, encoding), stream(2, encoding)
    sys.argv = ["momos", *arguments]
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = FAULT
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def stream(descriptor: int, encoding: str) -> io.TextIOWrapper:
    """A standard stream as the interpreter opens it."""
    return io.TextIOWrapper(
        open(descriptor, "wb", closefd=False), encoding=encoding, errors="strict"
    )


if __name__ == "__main__":
    for case in json.loads(sys.argv[1]):
        if not (child := os.fork()):
            os._exit(run(*case))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
