"""What keeps other users of the host out of a process of the service."""

from __future__ import annotations

import os
import resource


def keep_to_ourselves() -> None:
    """What this process and its children write is for nobody but their user and group, whoever starts them.

    Nor do they leave a core file, which would hold every token. systemd's unit says the same.
    """
    os.umask(os.umask(0o077) | 0o007)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
