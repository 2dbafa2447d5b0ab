#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the libvirt domain of the test guest.

The hosts are emulated, so everything that is not needed is left out: each device costs boot time and
exits. All disks are given with their serials, by which the guest knows them.
"""

import argparse
import sys
import uuid
import xml.etree.ElementTree as xml

CMDLINE = "console=ttyS0 panic=1 quiet"
BEAT_DEVICE = "/dev/disk/by-id/virtio-beat"
DISK_TARGETS = (("data", "vda"), ("swap", "vdb"), ("beat", "vdc"))


def add(parent, tag, text=None, **attributes):
    element = xml.SubElement(parent, tag, {name.rstrip("_"): str(value)
                                           for name, value in attributes.items()})
    element.text = text
    return element


def add_disk(devices, serial, target, path, io, format_):
    disk = add(devices, "disk", type="block", device="disk")
    # The beat disk must take no detour, and nobody may discard it.
    discard = {} if serial == "beat" else {"discard": "unmap"}
    add(disk, "driver", name="qemu", type=format_, cache="none", io=io, **discard)
    add(disk, "source", dev=path)
    add(disk, "target", dev=target, bus="virtio")
    if serial == "beat":
        # Each host has a beat disk of its own: without this mark libvirt would want to copy it
        # or call the migration unsafe.
        add(disk, "shareable")
    add(disk, "serial", serial)


def domain_xml(name, kernel, initrd, data, swap, beat=BEAT_DEVICE, memory_mib=96, options="",
               machine="pc", cpu=None, io="native", kind="kvm", console_log=None, data_format="raw"):
    """The domain as XML text. `options` are guest.NAME=NUMBER words for the guest's command line;
    the working set is 1.5 times the memory unless they say otherwise."""
    if "guest.memory_mib=" not in options:
        options = f"guest.memory_mib={memory_mib * 3 // 2} {options}".strip()
    domain = xml.Element("domain", {"type": kind})
    add(domain, "name", name)
    # The same wherever and whenever it is defined: to libvirt it is one VM.
    add(domain, "uuid", str(uuid.uuid5(uuid.NAMESPACE_DNS, name)))
    add(domain, "memory", str(memory_mib), unit="MiB")
    add(domain, "vcpu", "1")
    system = add(domain, "os")
    add(system, "type", "hvm", arch="x86_64", machine=machine)
    add(system, "kernel", kernel)
    add(system, "initrd", initrd)
    add(system, "cmdline", f"{CMDLINE} {options}")
    features = add(domain, "features")
    add(features, "acpi")
    add(features, "apic")
    if cpu:
        model = add(domain, "cpu", mode="custom", match="exact")
        add(model, "model", cpu, fallback="forbid")
    add(domain, "on_poweroff", "destroy")
    add(domain, "on_reboot", "destroy")
    add(domain, "on_crash", "destroy")
    devices = add(domain, "devices")
    for (serial, target), path in zip(DISK_TARGETS, (data, swap, beat)):
        add_disk(devices, serial, target, path, io, data_format if serial == "data" else "raw")
    add(devices, "controller", type="usb", model="none")
    serial = add(devices, "serial", type="pty")
    if console_log is None:
        console_log = f"/var/log/ferry-guest-{name}.log"
    add(serial, "log", file=console_log, append="on")
    add(devices, "memballoon", model="none")
    xml.indent(domain)
    return xml.tostring(domain, encoding="unicode") + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--kernel", required=True, help="path on the hosts")
    parser.add_argument("--initrd", required=True, help="path on the hosts")
    parser.add_argument("--data", required=True, help="data disk, as /dev/vg/web1")
    parser.add_argument("--swap", required=True, help="swap disk, as /dev/vg/web1-swap")
    parser.add_argument("--beat", default=BEAT_DEVICE)
    parser.add_argument("--memory-mib", type=int, default=96)
    parser.add_argument("--machine", default="pc")
    parser.add_argument("--cpu", help="CPU model; libvirt's default when not given")
    parser.add_argument("--data-format", default="raw", help="of the data disk; qcow2: an image in the volume")
    parser.add_argument("--io", default="native", choices=("native", "threads", "io_uring"))
    parser.add_argument("--kind", default="kvm", choices=("kvm", "qemu"))
    parser.add_argument("--options", default="", help="guest.NAME=NUMBER words")
    parser.add_argument("--console-log", help="file on the host")
    sys.stdout.write(domain_xml(**vars(parser.parse_args())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
