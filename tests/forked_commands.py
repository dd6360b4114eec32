"""Runs `momos` with many arguments, each in a fork of one process that has imported it.

Takes a JSON list of (arguments, where standard output goes, where standard error goes) and prints
the exit codes; "closed" is a pipe that nobody reads.
"""

import json
import os
import sys
import traceback

from momos.cli import main

FAULT = 99  # an exception that ends in a traceback


def run(arguments: list[str], output: str, error: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    if output == "closed":
        unread, descriptor = os.pipe()
        os.close(unread)
    else:
        descriptor = os.open(output, flags)
    os.dup2(descriptor, 1)
    os.dup2(os.open(error, flags), 2)
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


if __name__ == "__main__":
    for case in json.loads(sys.argv[1]):
        if not (child := os.fork()):
            os._exit(run(*case))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
