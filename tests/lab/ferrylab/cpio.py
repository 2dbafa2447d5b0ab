# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes "newc" cpio archives, the form of an initramfs. Needs no root and no cpio program."""

import stat


class Archive:
    """Collects files in memory. Parents of a path are made on the way, everything is root's."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._known: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        if path.strip("/") not in self._known:
            self._add(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        if isinstance(content, str):
            content = content.encode()
        self._add(path, stat.S_IFREG | mode, content)

    def symlink(self, path: str, target: str) -> None:
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._add(path, stat.S_IFCHR | mode, b"", (major, minor))

    def bytes(self) -> bytes:
        trailer = _entry(0, "TRAILER!!!", 0, b"", (0, 0))
        data = b"".join(self._parts) + trailer
        return data + b"\0" * (-len(data) % 512)

    def _add(self, path: str, mode: int, content: bytes, rdev: tuple[int, int] = (0, 0)) -> None:
        path = path.strip("/")
        parent = path.rpartition("/")[0]
        if parent and parent not in self._known:
            self.directory(parent)
        if path in self._known:
            raise ValueError(f"{path} is in the archive twice")
        self._known.add(path)
        self._parts.append(_entry(len(self._parts) + 1, path, mode, content, rdev))


def _entry(inode: int, path: str, mode: int, content: bytes, rdev: tuple[int, int]) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    numbers = (inode, mode, 0, 0, links, 0, len(content), 0, 0, rdev[0], rdev[1], len(name), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name
    head += b"\0" * (-len(head) % 4)
    return head + content + b"\0" * (-len(content) % 4)
