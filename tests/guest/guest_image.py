# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the test guest's kernel and initramfs from an unpacked Debian kernel.

The result lies in the cache under the hash of everything that went in: vmlinuz (as Debian ships it),
vmlinux (the same kernel unpacked, which starts much sooner where unpacking is emulated) and initrd.
"""

import hashlib
import lzma
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
WANTED_MODULES = ("virtio_pci", "virtio_blk")
SOURCES = ("guestd.cpp", "beat.cpp", "disk_writer.cpp", "memory_worker.cpp", "block_device.cpp",
           "sealed_block.cpp")
HEADERS = ("shared.h", "block_device.h", "sealed_block.h")
COMPILE = ["g++", "-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"]
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
exec /guestd
"""


class ImageError(Exception):
    """The image cannot be built; the text says what is missing."""


def cache_dir():
    return pathlib.Path(os.environ.get("FERRY_CACHE")
                        or pathlib.Path.home() / ".cache" / "ferry")


def find_kernel(tree, series=None):
    """Returns (version, vmlinuz path, modules path) of the newest kernel in an unpacked tree."""
    tree = pathlib.Path(tree)
    found = []
    for image in (tree / "boot").glob("vmlinuz-*"):
        version = image.name[len("vmlinuz-"):]
        for modules in (tree / "lib/modules" / version, tree / "usr/lib/modules" / version):
            fits = series is None or version.startswith(series + ".")
            if fits and (modules / "kernel").is_dir():
                found.append((version, image, modules))
                break
    if not found:
        wanted = f"{series} " if series else ""
        raise ImageError(f"no {wanted}kernel with modules under {tree}; give the root of an "
                         "unpacked linux-image package")
    return max(found, key=lambda kernel: [int(n) if n.isdigit() else 0 for n in
                                          kernel[0].replace("-", ".").replace("+", ".").split(".")])


def read_module(path):
    data = path.read_bytes()
    return lzma.decompress(data) if path.name.endswith(".xz") else data


def depends_of(module):
    """Names a module depends on, from its own modinfo: an unpacked package has no modules.dep."""
    at = module.find(b"\0depends=")
    if at < 0:
        at = module.find(b"depends=") - 1
    if at < -1:
        return []
    names = module[at + len(b"\0depends="):module.index(b"\0", at + 1)].decode()
    return [name for name in names.split(",") if name]


def collect_modules(modules):
    """The wanted modules and what they need, as [(name, bytes)] in loading order."""
    builtin = {pathlib.Path(line).name.split(".")[0].replace("-", "_")
               for line in (modules / "modules.builtin").read_text().split()}
    files = {}
    for path in (modules / "kernel/drivers").rglob("virtio*.ko*"):
        files[path.name.split(".")[0].replace("-", "_")] = path
    ordered = []

    def add(name):
        if name in builtin or any(name == known for known, _ in ordered):
            return
        if name not in files:
            raise ImageError(f"module {name} is neither in {modules} nor built in")
        data = read_module(files[name])
        for needed in depends_of(data):
            add(needed.replace("-", "_"))
        ordered.append((name, data))

    for name in WANTED_MODULES:
        add(name)
    return ordered


def unpack_kernel(image):
    """The ELF kernel inside a bzImage."""
    (setup_sectors,) = struct.unpack_from("<B", image, 0x1f1)
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start:start + length]
    if payload.startswith(b"\xfd7zXZ"):
        kernel = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x28\xb5\x2f\xfd"):
        # The last four bytes are the unpacked size, added by the kernel's build.
        kernel = subprocess.run(["zstd", "-dc"], input=payload[:-4], stdout=subprocess.PIPE,
                                check=True).stdout
    else:
        raise ImageError(f"kernel packed in an unknown way (starts with {payload[:4].hex()})")
    if not kernel.startswith(b"\x7fELF"):
        raise ImageError("unpacked kernel is not an ELF file")
    return trim_elf(kernel)


def trim_elf(kernel):
    """The same ELF program without its sections and without the zeros that end its segments: a third
    of the file, which the hosts would read at each start."""
    (table,) = struct.unpack_from("<Q", kernel, 32)
    entry_size, count = struct.unpack_from("<HH", kernel, 54)
    head = bytearray(kernel[:64])
    struct.pack_into("<Q", head, 32, 64)          # segment table right behind the header
    struct.pack_into("<Q", head, 40, 0)           # no section table
    struct.pack_into("<HHH", head, 58, 0, 0, 0)
    table_out, body = b"", b""
    for number in range(count):
        fields = list(struct.unpack_from("<IIQQQQQQ", kernel, table + number * entry_size))
        content = kernel[fields[2]:fields[2] + fields[5]]
        if fields[0] == 1:                        # PT_LOAD: memory behind the content is zero
            content = content.rstrip(b"\0")
        fields[2], fields[5] = 4096 + len(body), len(content)
        table_out += struct.pack("<IIQQQQQQ", *fields)
        body += content + b"\0" * (-len(content) % 4096)
    return (bytes(head) + table_out).ljust(4096, b"\0") + body


def cpio_entry(number, name, mode, data=b"", device=(0, 0)):
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def make_initramfs(guestd, busybox, modules):
    entries = [(name, stat.S_IFDIR | 0o755, b"", (0, 0))
               for name in ("bin", "dev", "proc", "sys", "modules")]
    entries.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
    entries.append(("init", stat.S_IFREG | 0o755, INIT.encode(), (0, 0)))
    entries.append(("guestd", stat.S_IFREG | 0o755, guestd, (0, 0)))
    entries.append(("bin/busybox", stat.S_IFREG | 0o755, busybox, (0, 0)))
    for applet in ("sh", "mount", "insmod", "cat"):
        entries.append((f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox", (0, 0)))
    order = " ".join(name for name, _ in modules)
    entries.append(("modules/order", stat.S_IFREG | 0o644, order.encode(), (0, 0)))
    for name, data in modules:
        entries.append((f"modules/{name}.ko", stat.S_IFREG | 0o644, data, (0, 0)))
    archive = b"".join(cpio_entry(number + 1, *entry[:3], device=entry[3])
                       for number, entry in enumerate(entries))
    return archive + cpio_entry(0, "TRAILER!!!", 0)


def find_busybox(tree):
    # /bin is a link in merged trees and busybox-static installs the same name as busybox.
    for path in (pathlib.Path("/bin/busybox"), pathlib.Path(tree) / "bin/busybox"):
        if path.is_file():
            data = path.read_bytes()
            if b"ld-linux" not in data[:8192]:
                return data
    raise ImageError("no static busybox found; install busybox-static")


def build(tree, series=None, cache=None):
    """Builds (or finds) the image and returns its directory."""
    version, image_path, modules_path = find_kernel(tree, series)
    image = image_path.read_bytes()
    modules = collect_modules(modules_path)
    busybox = find_busybox(tree)
    digest = hashlib.sha256()
    for part in ([pathlib.Path(__file__).read_bytes(), version.encode(), image, busybox] +
                 [data for _, data in modules] +
                 [(HERE / name).read_bytes() for name in SOURCES + HEADERS]):
        digest.update(hashlib.sha256(part).digest())
    target = pathlib.Path(cache or cache_dir()) / f"guest-{digest.hexdigest()[:16]}"
    if (target / "initrd").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="guest-new-", dir=target.parent))
    try:
        program = work / "guestd"
        subprocess.run(COMPILE + ["-o", str(program)] + [str(HERE / name) for name in SOURCES],
                       check=True)
        (work / "vmlinuz").write_bytes(image)
        (work / "vmlinux").write_bytes(unpack_kernel(image))
        (work / "kernel-version").write_text(version + "\n")
        (work / "initrd").write_bytes(make_initramfs(program.read_bytes(), busybox, modules))
        work.chmod(0o755)
        try:
            work.rename(target)
        except OSError:
            if not (target / "initrd").exists():   # else: somebody else was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target
