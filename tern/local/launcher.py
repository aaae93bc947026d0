"""Becomes a program that does not outlive its parent: `python launcher.py PARENT SIGNAL UID:GID|- ARGV…`.

Run by path and in isolated mode, so it may import only the standard library. It is a program of its own, and
not a hook between fork and exec, because such a hook runs in a copy of a process whose threads hold unknown
locks.
"""

import ctypes
import os
import shutil
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Drops privileges, ties itself to its parent, and becomes the program."""
    parent, signal_number, account, *argv = arguments
    # Now: the account that we become may be unable to read Python's own files, which a search would import.
    program = shutil.which(argv[0]) or argv[0]
    if account != "-":
        user, group = (int(part) for part in account.split(":"))
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
        except OSError as error:
            sys.stderr.write(f"cannot become {account}: {error.strerror}\n")
            sys.exit(126)
    if sys.platform == "linux":
        # After the change of account: Linux forgets the parent-death signal when the user changes.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number))
    if os.getppid() != int(parent):
        # The parent died before the line above; its death signal will not come any more.
        sys.exit(1)
    # The supervisor holds signals back while it starts us, a shell may have made us deaf to Ctrl-C, and
    # Python ignores some by itself; all of that would be inherited.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.execv(program, argv)  # noqa: S606 - becoming the given program is all there is to do
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
