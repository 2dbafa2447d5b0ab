# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that a guest on a qcow2 image in a volume moves with what QEMU writes to the image after it has
stopped the guest: on b the image is sound and its persistent dirty bitmap is there, consistent, with all its marks."""

import json
import subprocess

from _guest import SMALL, Guest, need

TIMEOUT = 1200
IMAGE_MIB = 40            # the volume holds 48: the rest is for the image's own tables
BITMAP = "backup0"


class ImageGuest(Guest):
    def create_volumes(self, host):
        """QEMU keeps the bitmap in memory while it runs, marked "in use" in the image, and stores it when it gives the
        image away: after the pause. Whoever copies less finds a bitmap that nobody may use."""
        super().create_volumes(host)
        image = self.lab.exchange / "empty.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, f"{IMAGE_MIB}M"], check=True)
        subprocess.run(["qemu-img", "bitmap", "--add", "-g", "65536", image, BITMAP], check=True)
        host.run(f"dd if=/exchange/{image.name} of={self.data} bs=64k conv=fsync,notrunc")

    def bitmap(self, host):
        """As the running QEMU has it."""
        question = json.dumps({"execute": "query-named-block-nodes", "arguments": {"flat": True}})
        answer = self.lab.hosts[host].run(f"virsh -q qemu-monitor-command web1 '{question}'").out
        found = [bitmap for node in json.loads(answer)["return"] for bitmap in node.get("dirty-bitmaps", ())
                 if bitmap.get("name") == BITMAP]
        need(len(found) == 1, f"QEMU on {host} does not have exactly one bitmap {BITMAP}: {found}")
        return found[0]

    def need_usable_bitmap(self, host, marks):
        bitmap = self.bitmap(host)
        need(not bitmap.get("inconsistent"), f"the bitmap on {host} was lost on the way: {bitmap}")
        need(bitmap["persistent"] and bitmap["recording"], f"the bitmap on {host} is not at work: {bitmap}")
        need(bitmap["count"] >= marks, f"the bitmap on {host} has lost marks, there were {marks} bytes: {bitmap}")
        return bitmap["count"]

    def need_sound_image(self, host):
        """In the volume, with no QEMU at work on it."""
        copy = self.lab.exchange / f"image-of-{host}.qcow2"
        self.lab.hosts[host].run(f"dd if={self.data} of=/exchange/{copy.name} bs=1M iflag=direct conv=sparse,fsync")
        check = subprocess.run(["qemu-img", "check", "-f", "qcow2", copy], capture_output=True, text=True)
        need(check.returncode == 0, f"the image on {host} is not clean:\n{check.stdout}{check.stderr}")
        told = subprocess.run(["qemu-img", "info", "--output=json", "-f", "qcow2", copy], capture_output=True, text=True,
                              check=True).stdout
        bitmaps = json.loads(told)["format-specific"]["data"].get("bitmaps", [])
        need([bitmap["name"] for bitmap in bitmaps] == [BITMAP], f"bitmaps in the image on {host}: {bitmaps}")
        need("in-use" not in bitmaps[0]["flags"], f"the bitmap in the image on {host} was not stored: {bitmaps}")


def run(lab):
    with ImageGuest(lab, data_format="qcow2", **SMALL) as guest:
        lab.a.wait_for(lambda: guest.bitmap("a")["count"], 60, "the bitmap to have marks")
        before = guest.need_usable_bitmap("a", 1)
        with guest.watched() as observer:
            _, job = guest.migrate("a", "b", "--create")
            guest.need_only_on("b")
        need(observer.result["ok"], f"signs of life: {observer.result['faults']}")
        after = guest.need_usable_bitmap("b", before)
        lab.log(f"bitmap: {before} bytes marked on a before, {after} on b; bytes sent by round: "
                f"{[r['bytes'] for r in job['rounds']]}")
        guest.verify()
        # What a's QEMU left behind is the image as it was handed over.
        guest.need_fenced("a")
        guest.need_sound_image("a")
        lab.b.run("virsh -q destroy --graceful web1")
        guest.need_sound_image("b")
        guest.need_open("b")
