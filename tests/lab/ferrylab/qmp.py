# SPDX-License-Identifier: GPL-2.0-or-later
"""One QMP command per connection. QEMU serves one client at a time, and commands are rare, so
nobody holds the socket and several processes can talk to the same lab."""

import json
import pathlib
import socket

from .paths import LabError


def execute(path: pathlib.Path, command: str, timeout: float = 30, **arguments):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        sock.connect(str(path))
        with sock.makefile("rw") as stream:
            json.loads(stream.readline())
            _call(stream, "qmp_capabilities", {})
            return _call(stream, command, arguments)


def _call(stream, command: str, arguments: dict):
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    for line in stream:
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(f"QMP {command}: {answer['error'].get('desc')}")
        if "return" in answer:
            return answer["return"]
    raise LabError(f"QMP {command}: QEMU closed the connection")
