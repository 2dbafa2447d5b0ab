# SPDX-License-Identifier: GPL-2.0-or-later
"""The test guest under libvirt on the lab's hosts, for scenarios."""

import pathlib
import shutil

import beatdisk
import domain
import guest_image
from observer import Observer

SWAP_WANTED_KIB = 40 * 1024


class LabGuest:
    """One guest: its volumes, its domain, its beat disks. `lab` is a running ferrylab.Lab.

    Sizes and rates fit emulated hosts. The swap disk is more than twice what is swapped out: a guest
    whose swap is half full rewrites every page it reads back, which doubles the cost of a verify.
    Both hosts get kernel and initrd through /exchange.
    """

    def __init__(self, lab, name="web1", data_mib=256, swap_mib=320, kernel=None, **domain_options):
        self.lab, self.name = lab, name
        self.data_mib, self.swap_mib = data_mib, swap_mib
        self.data, self.swap = f"/dev/vg/{name}", f"/dev/vg/{name}-swap"
        image = guest_image.build(lab.info["tree"], kernel or lab.options.kernel)
        # One name per image: the hosts' caches never see a file change.
        folder = pathlib.Path(lab.exchange) / image.name
        if not folder.exists():
            folder.mkdir()
            for file in ("vmlinux", "initrd"):
                shutil.copyfile(image / file, folder / file)
        self.xml = domain.domain_xml(name, f"/exchange/{image.name}/vmlinux",
                                     f"/exchange/{image.name}/initrd", self.data, self.swap,
                                     **domain_options)

    @property
    def beats(self):
        """Backing files of the beat disks out here, by host."""
        return {name: host.dir / "beat.img" for name, host in self.lab.hosts.items()}

    def create_volumes(self, host, data_mib=None):
        """Makes the volumes on a host (which may hold other sizes, or none, to see what happens)."""
        host.run(f"lvcreate -qy -Wy -L {data_mib or self.data_mib}M -n {self.name} vg && "
                 f"lvcreate -qy -Wy -L {self.swap_mib}M -n {self.name}-swap vg")

    def start(self, host):
        """Volumes and guest on one host; does not wait for the guest."""
        self.create_volumes(host)
        path = f"/root/{self.name}.xml"
        host.put(path, self.xml)
        # On a starved machine libvirt takes minutes to get QEMU and its monitor going.
        host.run(f"virsh -q define {path} && virsh -q start {self.name}", timeout=420)

    def wait_ready(self, timeout_s=400.0, swap_kib=SWAP_WANTED_KIB):
        """Waits until everything runs and swap is in use; returns the last beat."""
        return beatdisk.wait_ready(list(self.beats.values()), timeout_s, swap_kib)

    def ask(self, command, timeout_s=400.0):
        """Gives the guest a command wherever it runs; see the tool `command` for the words."""
        return beatdisk.ask(list(self.beats.values()), command, timeout_s)

    def observe(self, out, trace=None):
        """An Observer over both hosts: with guest.observe(path) as observer: …; observer.result."""
        return Observer(self.beats, out, trace)

    def is_running(self, host):
        return host.run(f"virsh -q domstate {self.name}", check=False).out.strip() == "running"

    def destroy(self, host):
        host.run(f"virsh -q destroy {self.name}; virsh -q undefine {self.name}; "
                 f"lvremove -qy vg/{self.name} vg/{self.name}-swap", check=False)
