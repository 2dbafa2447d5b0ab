# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that the lab itself is sound: both hosts talk over their link, the link can
be cut and healed, volumes can be made, a nested guest runs under libvirt on such a volume, and
libvirt moves it live from a to b."""

from ferrylab import guest

TIMEOUT = 1500


def run(lab):
    a, b = lab.a, lab.b
    check_link(lab)

    for host in (a, b):
        host.run("lvcreate -qy -L 64M -n smoke vg && test -b /dev/vg/smoke")
        host.run("test -b /dev/disk/by-id/virtio-beat && test -c /dev/kvm")

    lab.log("nested guest on a")
    guest.start_small(a, "smoke", disk="/dev/vg/smoke")
    guest.wait_for_marker(a, "smoke", "SMOKE-GUEST-TICK 3", timeout=420)

    lab.log("live migration a -> b")
    guest.install(b, "smoke")
    a.run("virsh migrate --live --unsafe smoke qemu+ssh://b/system "
          "--migrateuri tcp://10.77.0.2:49200", timeout=420)
    before = last_tick(b)
    b.wait_for(lambda: last_tick(b) > before + 2, 60, "ticks of the guest on b")
    state_a = a.run("virsh domstate smoke", check=False)
    assert "running" not in state_a.out, f"the guest still runs on a: {state_a}"
    b.run("virsh destroy smoke")
    for host in (a, b):
        host.run("lvremove -qy vg/smoke")


def check_link(lab):
    a, b = lab.a, lab.b

    def talks(seconds):
        ask = "exec 3<>/dev/tcp/b/7777; echo hello >&3; read -r answer <&3; echo $answer"
        return a.run(f"timeout {seconds} bash -c '{ask}'", check=False).out == "hello\n"

    server = b.spawn("busybox nc -ll -p 7777 -e busybox cat")
    a.wait_for(lambda: talks(3), 60, "an echo from b over the link")
    lab.cut_link()
    a.wait_for("grep -qx 0 /sys/class/net/eth1/carrier", 30, "a to lose its carrier")
    assert not talks(2), "the link is cut, and still carries data"
    lab.heal_link()
    a.wait_for(lambda: talks(3), 60, "an echo from b after the link was healed")
    server.stop()


def last_tick(host):
    return guest.last_number(host, "smoke", "SMOKE-GUEST-TICK")
