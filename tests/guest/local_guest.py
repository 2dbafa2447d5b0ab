# SPDX-License-Identifier: GPL-2.0-or-later
"""The test guest in a plain QEMU on this machine, with files as disks: for testing the guest itself."""

import json
import pathlib
import socket
import subprocess
import time

import beatdisk

CMDLINE = "console=ttyS0 panic=1 quiet"


class Disks:
    """Data and swap (shared by all guests of one test) as sparse files."""

    def __init__(self, folder, data_mib=64, swap_mib=320):
        self.data = pathlib.Path(folder) / "data.img"
        self.swap = pathlib.Path(folder) / "swap.img"
        for path, size in ((self.data, data_mib), (self.swap, swap_mib)):
            with open(path, "wb") as file:
                file.truncate(size << 20)


class Guest:
    """One QEMU. Give `incoming` (an address for QEMU) to have it wait for a migration."""

    def __init__(self, image, folder, name, disks, incoming=None, options=""):
        self.folder = pathlib.Path(folder)
        self.beat = self.folder / f"beat-{name}.img"
        self.console = self.folder / f"console-{name}.log"
        self.name = name
        beatdisk.create(self.beat)
        qmp = self.folder / f"qmp-{name}.sock"
        command = ["setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-name", name,
                   "-accel", "tcg", "-machine", "pc", "-cpu", "qemu64", "-m", "96",
                   "-display", "none", "-nodefaults", "-no-reboot",
                   "-serial", f"file:{self.console}", "-qmp", f"unix:{qmp},server=on,wait=off",
                   "-kernel", str(pathlib.Path(image) / "vmlinux"),
                   "-initrd", str(pathlib.Path(image) / "initrd"),
                   "-append", f"{CMDLINE} {options}".strip()]
        for serial, path in (("data", disks.data), ("swap", disks.swap), ("beat", self.beat)):
            command += ["-drive", f"if=none,id={serial},file={path},format=raw,discard=unmap,"
                                  "file.locking=off,cache=writeback",
                        "-device", f"virtio-blk-pci,drive={serial},serial={serial},share-rw=on"]
        if incoming:
            command += ["-incoming", incoming]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            self._connect(qmp)
        except BaseException:
            self.kill()
            raise

    def _connect(self, path, timeout_s=30.0):
        deadline = time.monotonic() + timeout_s
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.02)
        self._stream = self._socket.makefile("rw")
        self._stream.readline()
        self.qmp("qmp_capabilities")

    def qmp(self, command, **arguments):
        json.dump({"execute": command, "arguments": arguments}, self._stream)
        self._stream.write("\n")
        self._stream.flush()
        while True:
            reply = json.loads(self._stream.readline())
            if "error" in reply:
                raise RuntimeError(f"{command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]

    def is_alive(self):
        return self.process.poll() is None

    def migrate(self, address, timeout_s=120.0):
        """Moves the guest to the QEMU that listens at `address` and returns query-migrate's words."""
        self.qmp("migrate-set-parameters", **{"downtime-limit": 300, "max-bandwidth": 20 << 20})
        self.qmp("migrate", uri=address)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            state = self.qmp("query-migrate")
            if state.get("status") in ("completed", "failed", "cancelled"):
                return state
            time.sleep(0.05)
        raise RuntimeError(f"migration did not end in {timeout_s:g} s: {state}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
