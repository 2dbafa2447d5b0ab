# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that counts: QEMU with one emulated CPU whose clock is its instruction counter, a kernel of the lab and
an initramfs with the probe. No root and no network needed; ends with its parent or at its time limit."""

import os
import pathlib
import re
import subprocess

from ferrylab import initramfs, tree
from ferrylab.cpio import Archive
from ferrylab.host import die_with_parent
from ferrylab.paths import LabError

# crc32c_generic is asked for by name only, when the next module starts.
_MODULES = ("null_blk", "brd", "dm_mod", "crc32c_generic", "dm_era")
_OPTIONS = {"null_blk.ko": "nr_devices=1 gb=4 irqmode=0 queue_mode=2 submit_queues=1",
            "brd.ko": "rd_nr=2 rd_size=131072"}
_LIBRARY_DIRS = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64")

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin LD_LIBRARY_PATH=/lib DM_DISABLE_UDEV=1
mount -t proc proc /proc
mount -t sysfs sys /sys
# Whether a read has to note its time depends on what was written when: some instructions more or less.
mount -t devtmpfs -o noatime dev /dev
exec </dev/null >/dev/ttyS0 2>&1
fail() { echo "cost: $*"; poweroff -f; }
while read -r module options; do insmod /modules/$module $options || fail "no $module"; done </modules/order
lvm pvcreate -qq /dev/ram0 || fail "no physical volume"
lvm vgcreate -qq vg /dev/ram0 || fail "no volume group"
lvm lvcreate -qq -an -Zn -Wn -L 96M -n lv vg || fail "no volume"
lvm lvchange -qq -ay vg/lv || fail "volume does not start"
ferry-cost-probe /dev/nullb0 /dev/vg/lv /dev/ram1 >/dev/ttyS1 || fail "the probe failed"
poweroff -f
"""

_LVM_CONF = """
devices { use_devicesfile=0 obtain_device_list_from_udev=0 multipath_component_detection=0 md_component_detection=0 }
activation { udev_sync=0 udev_rules=0 monitoring=0 }
backup { backup=0 archive=0 }
global { locking_dir="/run" use_lvmpolld=0 }
"""


def image(modules: pathlib.Path, ferry: pathlib.Path, probe: pathlib.Path) -> bytes:
    """The initramfs: busybox, the kernel's modules, `ferry` (dm-ferry.ko), `probe`, LVM, and the libraries of both."""
    hosts = pathlib.Path(tree.ensure()["tree"])
    archive = Archive()
    archive.device("dev/console", 5, 1)
    for directory in ("proc", "sys", "run", "tmp"):
        archive.directory(directory)
    archive.file("init", _INIT, 0o755)
    archive.file("etc/lvm/lvm.conf", _LVM_CONF)
    archive.file("bin/busybox", (hosts / "bin/busybox").read_bytes(), 0o755)
    order = initramfs.add_modules(archive, modules, _MODULES)
    archive.file("modules/dm-ferry.ko", ferry.read_bytes())
    lines = [f"{name} {_OPTIONS.get(name, '')}\n" for name in [*order, "dm-ferry.ko"]]
    archive.file("modules/order", "".join(lines))
    programs = {"bin/ferry-cost-probe": probe, "bin/lvm": hosts / "usr/sbin/lvm"}
    for name, program in programs.items():
        archive.file(name, program.read_bytes(), 0o755)
    for name, library in _libraries(hosts, programs.values()).items():
        archive.file(f"lib/{name}", library.read_bytes(), 0o755)
    archive.symlink("lib64", "lib")
    return archive.bytes()


def run(vmlinuz: pathlib.Path, initrd: pathlib.Path, work: pathlib.Path, time_limit_s: int) -> str:
    """Boots, returns what the probe printed. The console stays in work/console.log."""
    console, output = work / "console.log", work / "output"
    words = ("console=ttyS0 loglevel=5 mitigations=off nokaslr audit=0 panic=-1 no_timer_check "
             # The clock is exact but far from that of the board's other timers.
             "tsc=reliable nowatchdog rcupdate.rcu_cpu_stall_suppress=1 transparent_hugepage=always")
    argv = ["qemu-system-x86_64", "-name", "ferry-cost", "-M", "pc", "-accel", "tcg,thread=single", "-cpu", "max",
            "-icount", "shift=0,sleep=off", "-smp", "1", "-m", "768", "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", vmlinuz, "-initrd", initrd, "-append", words,
            "-serial", f"file:{console}", "-serial", f"file:{output}"]
    try:
        done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=time_limit_s, preexec_fn=die_with_parent)
    except subprocess.TimeoutExpired:
        raise LabError(f"the machine did not finish within {time_limit_s} s; its last words:\n{_tail(console)}") from None
    if done.returncode != 0:
        raise LabError(f"QEMU ended with {done.returncode}: {done.stderr.strip()}")
    text = output.read_text(errors="replace") if output.exists() else ""
    if '"end"' not in text:
        raise LabError(f"the measurement did not come to its end; the machine's last words:\n{_tail(console)}")
    return text


def _tail(log: pathlib.Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(none)"


def _libraries(root: pathlib.Path, programs) -> dict[str, pathlib.Path]:
    """Every shared library that the programs need, as the lab's hosts have it."""
    found: dict[str, pathlib.Path] = {}
    open_ends = list(programs)
    while open_ends:
        for name in _needed(open_ends.pop()):
            if name in found:
                continue
            candidates = [root / where / name for where in _LIBRARY_DIRS]
            path = next((one for one in candidates if one.exists()), None)
            if path is None:
                raise LabError(f"the hosts' tree has no {name}")
            found[name] = path
            open_ends.append(path)
    return found


def _needed(program: pathlib.Path) -> list[str]:
    shown = subprocess.run(["readelf", "-d", "-l", program], check=True, stdout=subprocess.PIPE, text=True,
                           env=os.environ | {"LC_ALL": "C"}).stdout
    names = re.findall(r"\(NEEDED\).*\[(.*)\]", shown)
    return names + [pathlib.PurePath(one).name for one in re.findall(r"program interpreter: (.*)\]", shown)]
