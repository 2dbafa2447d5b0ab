# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that the lab's accidents are real: a host whose power was cut, either of the two, is silent and
comes back with its disks and nothing else, and a killed ferryd is another process afterwards."""

TIMEOUT = 900


def run(lab):
    for host, other in ((lab.a, lab.b), (lab.b, lab.a)):
        power_cycle(host, other)
        crash(host)


def talks(host, other):
    return host.run(f"timeout 3 bash -c 'exec 3<>/dev/tcp/{other.name}/22'", check=False).rc == 0


def power_cycle(host, other):
    host.run("lvcreate -qy -Wn -Zn -L 8M -n kept vg && echo kept | dd of=/dev/vg/kept conv=sync,fsync && touch /root/lost")
    boot = host.run("cat /proc/sys/kernel/random/boot_id").out
    other.wait_for(lambda: talks(other, host), 30, f"{host.name} to answer before")
    host.power_off()
    assert not talks(other, host), f"host {host.name} has no power and still answers"
    host.power_on()
    assert host.run("cat /proc/sys/kernel/random/boot_id").out != boot, f"host {host.name} was never off"
    assert host.run("dd if=/dev/vg/kept count=1 status=none").out.startswith("kept\n"), "the volume has lost its contents"
    host.run("test ! -e /root/lost")
    other.wait_for(lambda: talks(other, host), 30, f"{host.name} to answer again")
    host.run("lvremove -qy vg/kept")


def crash(host):
    pid = "systemctl show -P MainPID ferryd"
    before = host.run(pid).out
    host.kill9("ferryd")
    after = host.wait_for("systemctl is-active -q ferryd && " + pid, 60, "ferryd to be started again").out
    assert after not in (before, "0\n"), f"ferryd was process {before} and is {after}"
