# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that a guest which writes and swaps moves from a to b with its disks: it runs on b and not
on a, every record and page verifies, digests are equal, the source refuses writes until it is released."""

from _guest import Guest, need

TIMEOUT = 1500


def run(lab):
    with Guest(lab) as guest:
        with guest.watched() as observer:
            _, job = guest.migrate("a", "b", "--create")
            guest.need_only_on("b")
        answer = guest.verify()
        result = observer.result
        need(result["ok"], f"signs of life: {result['faults']}")
        need(len(result["switches"]) == 1, f"not exactly one switch: {result['switches']}")
        lab.log(f"downtime seen from outside {result['switches'][0]['downtime_ms']:.0f} ms, "
                f"{len(job['rounds'])} rounds, {job['total_ms']} ms, guest: {answer}")
        guest.need_fenced("a")
        guest.need_open("b")
        need(guest.swap_in_use_mib() > 8, "the guest does not swap")
        refused_on_the_way_back(lab, guest)
        called_off_on_the_way_back(lab, guest)
        lab.a.run("migrate-ctl release web1")
        for volume in ("web1", "web1-swap"):
            lab.a.run(f"dd if=/dev/zero of=/dev/vg/{volume} bs=4k count=1 oflag=direct conv=notrunc")
        guest.need_plain("a")


def refused_on_the_way_back(lab, guest):
    """The guest has one disk more, in whose place over there somebody else's volume lies: that is left alone. Then it is
    of the wrong size, and nobody has it open."""
    kept = lab.a.run("migrate-ctl own web1 --json").out
    for size, host in (("12M", lab.a), ("8M", lab.b)):
        host.run(f"lvcreate -q -y -n other -L {size} vg")
    lab.b.run("virsh -q attach-disk web1 /dev/vg/other vdd --cache none --subdriver raw")
    lab.a.run("mke2fs -q /dev/vg/other && mount /dev/vg/other /mnt")
    need_refused(lab, guest, "in use")
    lab.a.run("echo alive >/mnt/file && sync /mnt/file && umount /mnt")
    need_refused(lab, guest, "bytes")
    lab.a.run("dd if=/dev/zero of=/dev/vg/other bs=4k count=1 oflag=direct conv=notrunc && lvremove -q -y vg/other")
    need(lab.a.run("migrate-ctl own web1 --json").out == kept, "a's records of its old copies are others than before")


def need_refused(lab, guest, word):
    refused = lab.b.run("migrate-ctl migrate web1 a", check=False)
    need(refused.rc != 0 and word in refused.err, f"not refused for being {word}: {refused.out}{refused.err}")
    guest.need_only_on("b")
    guest.need_fenced("a")


def called_off_on_the_way_back(lab, guest):
    """The old home's volumes were on their way to being written again: they must be fenced as before."""
    command, job = guest.begin_slowly("b", "a", "--create --keep 0 --retry-for 0")
    lab.b.run(f"migrate-ctl abort {job}")
    need(command.wait(90, check=False).rc == 1, f"the aborted migration did not end with 1: {command.out}")
    guest.need_only_on("b")
    guest.need_plain("b")
    lab.a.wait_for("! dmsetup ls | grep -q -e -ferry", 60, "a to have taken its part back")
    guest.need_fenced("a")
    guest.need_green()
