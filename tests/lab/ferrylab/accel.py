# SPDX-License-Identifier: GPL-2.0-or-later
"""Chooses between KVM and emulation. /dev/kvm alone proves nothing: on some machines it opens
and then hangs the guest, so a probe guest has to answer first."""

import os
import pathlib
import subprocess
import tempfile

# A boot sector that writes 0x2a to the isa-debug-exit port; QEMU then exits with 0x2a * 2 + 1.
_BOOT_SECTOR = (bytes.fromhex("baf400" "b02a" "ee" "f4" "ebfd").ljust(510, b"\0") + b"\x55\xaa")
_ANSWER = 0x2A * 2 + 1


def choose() -> tuple[str, str]:
    """Returns ("kvm" | "tcg", why)."""
    wish = os.environ.get("FERRY_LAB_ACCEL")
    if wish in ("kvm", "tcg"):
        return wish, "FERRY_LAB_ACCEL says so"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm cannot be opened"
    for vendor in ("intel", "amd"):
        module = pathlib.Path(f"/sys/module/kvm_{vendor}")
        if module.is_dir():
            break
    else:
        return "tcg", "/dev/kvm exists, but neither kvm_intel nor kvm_amd is loaded"
    try:
        nested = (module / "parameters" / "nested").read_text().strip()
    except OSError:
        nested = "N"
    if nested not in ("Y", "1"):
        return "tcg", f"{module.name} does not nest, and the hosts run guests of their own"
    return _probe(module.name)


def _probe(name: str) -> tuple[str, str]:
    with tempfile.NamedTemporaryFile(prefix="ferry-probe-") as disk:
        disk.write(_BOOT_SECTOR)
        disk.flush()
        argv = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "64", "-nodefaults",
                "-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
                "-drive", f"file={disk.name},format=raw,if=ide,readonly=off,snapshot=on"]
        try:
            done = subprocess.run(argv, timeout=5, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return "tcg", f"{name} is loaded, but a probe guest gave no answer in 5 s"
        except OSError as error:
            return "tcg", f"the probe guest did not start: {error}"
    if done.returncode == _ANSWER:
        return "kvm", f"{name} is loaded and a probe guest answered"
    return "tcg", f"{name} is loaded, but the probe guest ended with status {done.returncode}"
