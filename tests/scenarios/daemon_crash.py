# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that when ferryd crashes at a change of state of the hand-over, on either side, exactly one host
owns the disks afterwards and the guest runs there with all that was acknowledged, without an operator."""

import json

from ferrylab.paths import REPO

from _guest import SMALL, Guest, need

TIMEOUT = 2400
LIBRARY = REPO / "build/tests/fault/libferry-fault-points.so"
# On which host ferryd crashes, and where. Up to the destination's own record all of them end on a.
CASES = [
    ("a", "source: attaching -> precopy"),
    ("b", "destination: preparing -> receiving"),
    ("a", "source: fencing -> committing"),
    ("b", "destination: promising -> ready"),
    ("b", "destination: ready -> accepting"),
    ("a", "source: committing -> granting"),
]


def run(lab):
    for host in lab.hosts.values():
        host.put("/root/fault.so", LIBRARY, 0o755)
        host.run("mkdir -p /run/systemd/system/ferryd.service.d && printf '[Service]\\nEnvironment=LD_PRELOAD=/root/fault.so\\n"
                 "ProtectHome=no\\nRestartSec=1\\n' >/run/systemd/system/ferryd.service.d/fault.conf && "
                 "systemctl daemon-reload && systemctl restart ferryd")
    with Guest(lab, **SMALL) as guest:
        for where, point in CASES:
            crash_at(lab, guest, where, point)
        # Nothing that a crash left is in the way of going at last.
        guest.migrate("a", "b", "--create")
        guest.need_only_on("b")
        guest.verify_disk()


def crash_at(lab, guest, where, point):
    lab.log(f"--- ferryd on {where} crashes at {point}")
    host = lab.hosts[where]
    before = host.run("systemctl show -P NRestarts ferryd").out.strip()
    host.run(f"echo 'crash {point}' >/run/ferry-fault")
    command = lab.a.spawn("migrate-ctl migrate web1 b --create --json")
    host.wait_for("! test -e /run/ferry-fault", 300, f"ferryd to come to {point}")
    host.wait_for(f"test $(systemctl show -P NRestarts ferryd) != {before} && systemctl is-active ferryd", 60,
                  "systemd to start ferryd again")
    need(command.wait(300, check=False).rc != 0, f"the migration is said to have gone well: {command.out}")
    lab.a.wait_for(lambda: settled(lab), 180, "both hosts to have settled who owns the disks")
    guest.need_only_on("a")
    need("owned" not in holdings(lab, "b"), "b is on record as owner, too")
    lab.b.wait_for("! dmsetup ls | grep -q -e -ferry", 60, "b to have taken its part back")
    guest.need_plain("a")
    guest.verify_disk()
    lab.log(f"ok: {point}")


def holdings(lab, name):
    """What a host has on record about the guest's disks."""
    answer = lab.hosts[name].run("migrate-ctl own --json", check=False)
    disks = json.loads(answer.out)["disks"] if answer.rc == 0 and answer.out.strip() else []
    return {disk["holding"] for disk in disks if disk["vm"] == "web1"}


def settled(lab):
    open_ones = {"moving", "granting", "receiving", "prepared"}
    return not any(holdings(lab, name) & open_ones for name in lab.hosts)
