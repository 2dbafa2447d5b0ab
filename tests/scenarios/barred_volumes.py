# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that a disk which another host owns stays closed on this one: after a power cut, after
lvchange --refresh, without the filter's module, and with records that cannot be read no guest is started. With
ferry-bar.service disabled and the marks taken away, the same guest starts and the same write goes through."""

from ferrylab import guest
from ferrylab.paths import REPO

HOSTS = 1
DURABLE = True
TIMEOUT = 600

RECORD = REPO / "build/tests/records/ferry-record"
DB = "/var/lib/ferry/ownership.db"
# What LVM keeps inactive, and what an admin made active again.
GIVEN, SHOWN = "/dev/vg/given", "/dev/vg/shown"
VM = "web-small"


def run(lab):
    host = lab.a
    for step in (record_two_disks, power_cut, closed_after_boot, refreshed, records_damaged, module_missing, ours_again,
                 control):
        lab.log(f"--- {step.__name__}")
        step(lab, host)


def need(condition, text):
    if not condition:
        raise AssertionError(text)


# --- what is looked at ---

def can_write(host, path):
    return host.run(f"dd if=/dev/urandom of={path} bs=4k count=1 oflag=direct conv=notrunc", check=False).rc == 0


def need_closed(host, path):
    read = host.run(f"dd if={path} of=/dev/null bs=4k count=1 iflag=direct", check=False)
    need(read.rc == 0, f"{path} cannot be read: {read.err}")
    need(not can_write(host, path), f"{path} takes writes though another host owns it")


def exists(host, path):
    return host.run(f"test -e {path}", check=False).rc == 0


def is_filtered(host, path):
    return " ferry " in host.run(f"dmsetup table {path}").out


def is_hidden(host, path):
    tags, _, skip = host.run(f"lvs --noheadings --separator / -o lv_tags,lv_skip_activation {path[5:]}") \
        .out.strip().partition("/")
    return "ferry_fenced" in tags and skip == "skip activation"


def wait_fenced_again(host, path):
    # By its table: a write would be one more way to do harm.
    host.wait_for(lambda: is_filtered(host, path), 30, f"{path} to be fenced again")
    need_closed(host, path)


# --- the story ---

def record_two_disks(_lab, host):
    host.put("/usr/local/bin/ferry-record", RECORD, 0o755)
    for path in (GIVEN, SHOWN):
        host.run(f"lvcreate -q -y -Wn -Zn -L 16m -n {path[8:]} vg")
        need(can_write(host, path), f"{path} is no use to this scenario")
    xml = guest.describe_small(host, VM, GIVEN)
    host.run(f"virsh define {xml} && virsh autostart {VM}")
    host.run(f"ferry-record {DB} given {GIVEN} {SHOWN} && systemctl start ferry-bar")
    for path in (GIVEN, SHOWN):
        need_closed(host, path)
        need(is_filtered(host, path), f"hiding {path} has taken the filter out")
        need(is_hidden(host, path), f"{path} is not hidden from activation")
    host.run(f"lvchange --setactivationskip n {SHOWN[5:]}")


def power_cut(_lab, host):
    host.power_off()
    host.power_on()


def closed_after_boot(_lab, host):
    need(not exists(host, GIVEN), f"{GIVEN} was activated")
    need_closed(host, SHOWN)
    need(is_hidden(host, SHOWN), f"{SHOWN} was not hidden again")
    host.wait_for("journalctl -b -u libvirtd | grep -i autostart", 60, "libvirt to try the autostart")
    state = host.run(f"virsh domstate {VM}").out.strip()
    need(state == "shut off", f"the guest is {state}")


def refreshed(_lab, host):
    for command in (f"lvchange --refresh {SHOWN[5:]}", f"lvextend -q -L +4m {SHOWN[5:]}"):
        host.run(command)
        wait_fenced_again(host, SHOWN)
    host.run(f"lvchange -ay -K {GIVEN[5:]}")
    wait_fenced_again(host, GIVEN)
    said = host.run("journalctl -b -p err -u ferryd").out
    need(said.count("fenced again") == 3, f"the log does not tell of each: {said}")


def records_damaged(_lab, host):
    libvirt = "libvirtd.service libvirtd.socket libvirtd-ro.socket"
    host.run(f"systemctl stop ferryd {libvirt}")
    need_closed(host, GIVEN)
    host.run(f"cp {DB} /root/saved; head -c 8192 /dev/urandom >{DB}")
    started = host.run("systemctl start libvirtd.service", check=False)
    need(started.rc != 0, "libvirtd starts though nobody knows which disks are whose")
    said = host.run("journalctl -b -u ferry-bar").out
    need("damaged" in said and DB in said, f"the log does not say what is wrong: {said}")
    host.run(f"cp /root/saved {DB} && systemctl start libvirtd.service")


def module_missing(_lab, host):
    both = f"{GIVEN[5:]} {SHOWN[5:]}"
    module = "/usr/lib/modules/$(uname -r)/updates/dm-ferry.ko"
    host.run(f"lvchange -an {both} && rmmod dm_ferry && mv {module} /root/ && lvchange -ay -K {both}")
    need(not is_filtered(host, GIVEN), "the filter is there without its module")
    host.run("systemctl start ferry-bar")
    for path in (GIVEN, SHOWN):
        need_closed(host, path)
    said = host.run("journalctl -b -p err -u ferry-bar").out
    need("read-only instead" in said and "modprobe dm-ferry" in said, f"the log does not say what to do: {said}")
    host.run(f"mv /root/dm-ferry.ko {module} && insmod {module} && systemctl start ferry-bar")
    for path in (GIVEN, SHOWN):
        need(is_filtered(host, path), f"{path} is not fenced, though the module is there again")
        need_closed(host, path)


def ours_again(_lab, host):
    host.run(f"lvchange -an {SHOWN[5:]}; ferry-record {DB} owned {SHOWN}")
    need(not is_hidden(host, SHOWN), f"{SHOWN} would not be there after a reboot")
    need(not is_filtered(host, SHOWN), f"{SHOWN} still has the filter")
    need(can_write(host, SHOWN), f"{SHOWN} is ours and does not take writes")
    need_closed(host, GIVEN)
    host.run("systemctl start ferryd")


def control(_lab, host):
    units = "/etc/systemd/system"
    host.run(f"rm {units}/libvirtd.service.requires/ferry-bar.service {units}/lab.target.wants/ferryd.service && "
             f"lvchange --setactivationskip n {GIVEN[5:]}")
    host.reboot()
    need(can_write(host, GIVEN), "nothing bars the disk, and yet it takes no writes: this scenario cannot fail")
    guest.wait_for_marker(host, VM, "SMOKE-GUEST-TICK 3")
    host.run(f"virsh destroy {VM}")
