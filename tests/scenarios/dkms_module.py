# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that a module which DKMS built is found and loaded by its kernel, by name. tests/kmod/dkms
builds it and runs this; without it there is nothing to see."""

from ferrylab.runner import Skip

HOSTS = 1
MEMORY = "1G"
TIMEOUT = 1200


def run(lab):
    host = lab.a
    if host.run("ls /lib/modules/$(uname -r)/updates/dkms/dm-ferry.ko*", check=False).rc != 0:
        raise Skip("no module of DKMS is staged")
    # 6.12 has its modules compressed: depmod takes minutes on an emulated host.
    host.run("depmod -a && modprobe dm-ferry", timeout=900)
    path = host.run("modinfo -F filename dm-ferry").out.strip()
    assert "/updates/dkms/" in path, f"modprobe found another module: {path}"
    targets = host.run("dmsetup targets").out
    assert "ferry" in targets.split(), f"device-mapper knows no target ferry: {targets}"
    host.run("test -c /dev/ferry")
    host.run("rmmod dm_ferry && ! test -e /dev/ferry")
    host.dmesg_check()
