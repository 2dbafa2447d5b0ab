# SPDX-License-Identifier: GPL-2.0-or-later
"""A very small nested guest: the host's own kernel and busybox, counting on its serial line. It
says that nested KVM and libvirt work. The guest that Ferry is judged by lives in tests/guest."""

import pathlib
import re

from .cpio import Archive
from .host import Host

_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev
/bin/busybox mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1
n=0
while :; do
    n=$((n + 1))
    echo "SMOKE-GUEST-TICK $n"
    /bin/busybox usleep 200000
done
"""

_DOMAIN = """<domain type='kvm'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 loglevel=6 mitigations=off panic=-1</cmdline>
  </os>
  <cpu mode='host-passthrough'/>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    {disks}
    <serial type='file'>
      <source path='/var/log/{name}.console' append='on'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""

_DISK = """<disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>
      <source dev='{path}'/>
      <target dev='vda' bus='virtio'/>
      <serial>data</serial>
    </disk>"""


def install(host: Host, name: str) -> str:
    """Puts the guest's initramfs on a host; a destination of a migration wants it too."""
    archive = Archive()
    archive.device("dev/console", 5, 1)
    archive.file("init", _INIT, 0o755)
    tree = pathlib.Path(host.config["tree"])
    archive.file("bin/busybox", (tree / "bin/busybox").read_bytes(), 0o755)
    initrd = f"/var/lib/{name}.initrd"
    host.put(initrd, archive.bytes())
    return initrd


def describe_small(host: Host, name: str, disk: str | None = None, memory_mib: int = 128) -> str:
    """Puts the guest's domain on the host; returns the path of its XML there."""
    initrd = install(host, name)
    kver = host.run("uname -r").out.strip()
    xml = _DOMAIN.format(name=name, memory_mib=memory_mib, kernel=f"/boot/vmlinuz-{kver}",
                         initrd=initrd, disks=_DISK.format(path=disk) if disk else "")
    host.put(f"/var/lib/{name}.xml", xml)
    return f"/var/lib/{name}.xml"


def start_small(host: Host, name: str, disk: str | None = None, memory_mib: int = 128) -> None:
    """Starts the guest through libvirt. Its console is /var/log/NAME.console on the host."""
    host.run(f"virsh create {describe_small(host, name, disk, memory_mib)}", timeout=420)


def wait_for_marker(host: Host, name: str, marker: str, timeout: float = 120) -> None:
    console = f"/var/log/{name}.console"

    def arrived() -> bool:
        if host.run(f"grep -qF '{marker}' {console}", check=False).rc == 0:
            return True
        state = host.run(f"virsh domstate {name}", check=False).out.strip()
        if state != "running":
            raise AssertionError(f"guest {name} is {state or 'gone'}; console:\n"
                                 + host.run(f"tail -n 20 {console}", check=False).out)
        return False

    host.wait_for(arrived, timeout, f"\"{marker}\" on the console of guest {name}", interval=0.5)


def last_number(host: Host, name: str, word: str) -> int:
    """The number of the last line "WORD number" that the guest wrote; 0 when there is none."""
    found = re.findall(rf"{word} (\d+)\r?\n", host.run(
        f"tail -n 5 /var/log/{name}.console", check=False).out)
    return int(found[-1]) if found else 0
