# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a command in a tree of another release."""

import pathlib
import shlex


def argv(root: pathlib.Path, *command) -> list[str]:
    """The command line that runs `command` as root inside `root`, with a /proc that goes when it ends: the mount
    namespace is its own. Build tools read their limits there."""
    words = " ".join(shlex.quote(str(word)) for word in command)
    where = shlex.quote(str(root))
    return ["unshare", "--mount", "sh", "-c", f"mount -t proc proc {where}/proc && exec chroot {where} {words}"]
