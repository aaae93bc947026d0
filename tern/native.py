"""gRPC's core writes lines of its own, past Python's logging. They tell of sockets and threads in the words of its
source code and are no JSON; whatever matters of them comes as an error of the call as well.
"""

import os


def keep_quiet() -> None:
    """They are not written by this process and those that it starts, unless somebody has said otherwise. Before gRPC is
    imported, which reads it once.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
