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
        called_off_on_the_way_back(lab, guest)
        lab.a.run("migrate-ctl release web1")
        for volume in ("web1", "web1-swap"):
            lab.a.run(f"dd if=/dev/zero of=/dev/vg/{volume} bs=4k count=1 oflag=direct conv=notrunc")
        guest.need_plain("a")


def called_off_on_the_way_back(lab, guest):
    """The old home's volumes were on their way to being written again: they must be fenced as before."""
    command, job = guest.begin_slowly("b", "a")
    lab.b.run(f"migrate-ctl abort {job}")
    need(command.wait(90, check=False).rc == 1, f"the aborted migration did not end with 1: {command.out}")
    guest.need_only_on("b")
    guest.need_plain("b")
    lab.a.wait_for("! dmsetup ls | grep -q -e -ferry", 60, "a to have taken its part back")
    guest.need_fenced("a")
    guest.need_green()
