# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that whatever breaks at a change of state of a migration, on either side, exactly one host owns
the disks afterwards, the guest runs there or can be started there with all that was acknowledged, without an operator,
and nothing is left behind.

A fault strikes while ferryd stands still in the middle of the change: it crashes; it hangs and goes on late; the link
is cut under it; one of the hosts loses power. Besides, each message of a good migration is lost (with its connection, as
on TCP) or comes twice, and a destination stands still for longer than the source waits. FERRY_FAULTS=all runs all of
them (hours), another value those cases whose name contains one of its words, separated by commas; without it the cases
of QUICK. Results: build/results/faults.json."""

import json
import os
import time

from ferrylab.paths import REPO, LabError

from _guest import SMALL, Guest, need

DURABLE = True
TIMEOUT = 1800 if not os.environ.get("FERRY_FAULTS") else 6 * 3600
LIBRARY = REPO / "build/tests/fault/libferry-fault-points.so"
RESULTS = REPO / "build/results/faults.json"

# The changes of state of a migration that goes well, in their order (docs/ownership.md).
POINTS = {
    "a": ("source", ["idle", "connecting", "preparing", "claiming", "attaching", "precopy", "switching", "paused", "freezing",
                     "final_round", "awaiting_ready", "fencing", "committing", "granting", "completing", "verifying",
                     "finishing", "done"]),
    "b": ("destination", ["idle", "claiming", "preparing", "receiving", "flushing", "promising", "ready", "accepting", "opening",
                          "open", "verifying", "open", "cleaning", "finished"]),
}
FAULTS = ("crash", "hang", "link", "power a", "power b")
MESSAGES = {"a": ("prepare", "close_gate", "ready?", "grant", "digests?", "finish"),
            "b": ("prepared", "ready", "opened", "digests", "finished")}
MESSAGE_FAULTS = ("drop", "duplicate")
# Where the destination keeps a guest waiting that stands still already.
STUCK = ("destination: receiving -> flushing", "destination: flushing -> promising", "destination: promising -> ready")
# What breaks while the disks are copied is in `interrupted`.
QUICK = ["crash source: committing -> granting", "crash destination: promising -> ready",
         "hang source: committing -> granting", "link destination: accepting -> opening"]
# Each case copies it anew.
TINY = SMALL | {"data_mib": 16, "swap_mib": 16}
# Longer than a link needs to be given up, and than a frozen disk is held for a daemon that is late.
LATE_S = 30


def names():
    """host, fault and point of every case."""
    for host, (side, states) in POINTS.items():
        for state, following in zip(states, states[1:]):
            for fault in FAULTS:
                yield host, fault, f"{side}: {state} -> {following}"
    for host, messages in MESSAGES.items():
        for message in messages:
            for fault in MESSAGE_FAULTS:
                yield host, fault, f"message: {message}"
    for point in STUCK:
        yield "b", "stuck", point


def chosen():
    wanted = os.environ.get("FERRY_FAULTS")
    for host, fault, point in dict.fromkeys(names()):
        name = f"{fault} {point}"
        if wanted == "all" or (not wanted and name in QUICK) or (wanted and any(word in name for word in wanted.split(","))):
            yield host, fault, point


def run(lab):
    cases = list(chosen())
    need(cases, f"FERRY_FAULTS={os.environ.get('FERRY_FAULTS')} chooses nothing")
    for host in lab.hosts.values():
        host.put("/root/fault.so", LIBRARY, 0o755)
        # On the disk: a host that loses power has to come back with it.
        host.put("/etc/systemd/system/ferryd.service.d/fault.conf",
                 "[Service]\nEnvironment=LD_PRELOAD=/root/fault.so\nProtectHome=no\nRestartSec=1\n")
        host.run("systemctl daemon-reload && systemctl restart ferryd")
    rows = []
    with Guest(lab, **TINY) as guest:
        for host, fault, point in cases:
            rows.append(one(lab, guest, host, fault, point))
            write(rows)
        # Nothing that a fault left is in the way of going at last.
        guest.migrate("a", "b", "--create")
        guest.need_only_on("b")
        guest.verify_disk()
    bad = [f"{row['fault']} {row['point']}: {row['why']}" for row in rows if not row["passed"]]
    need(not bad, "; ".join(bad))


def write(rows):
    good = sum(row["passed"] for row in rows)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"cases": len(rows), "passed": good, "failed": len(rows) - good, "rows": rows}, indent=1))


def one(lab, guest, where, fault, point):
    """A row of the results. Whatever the outcome, the next case finds the guest on a and nothing on b."""
    began = time.monotonic()
    row = {"host": where, "fault": fault, "point": point, "passed": False, "owner": "", "why": ""}
    try:
        row["owner"] = break_it(lab, guest, where, fault, point)
        row["passed"] = True
    except (AssertionError, LabError) as error:
        row["why"] = str(error)[:400]
    row["seconds"] = round(time.monotonic() - began)
    lab.log(f"{'ok  ' if row['passed'] else 'FAIL'} {fault} {point}: owner {row['owner'] or '?'}, {row['seconds']} s {row['why']}")
    if row["owner"] != "a" or not row["passed"]:
        guest.tidy()
        guest.start(lab.a)
        guest.wait_ready(swap_kib=0)
    return row


def break_it(lab, guest, where, fault, point):
    host = lab.hosts[where]
    what = fault if fault in ("crash", *MESSAGE_FAULTS) else "hang"
    host.run(f"echo '{what} {point}' >/run/ferry-fault")
    started = time.time()
    lab.a.spawn("migrate-ctl migrate web1 b --create --keep 0 --retry-for 0 --json")
    host.wait_for("! test -e /run/ferry-fault", 300, f"ferryd to come to {point}")
    strike(lab, host, fault)
    for each in lab.hosts.values():
        each.wait_for("systemctl is-active ferryd && migrate-ctl jobs >/dev/null", 90, f"ferryd on {each.name}")
    lab.a.wait_for(lambda: settled(lab), 300, "both hosts to have settled who owns the disks")
    owner = owner_of(lab)
    other = "b" if owner == "a" else "a"
    if not guest.runs_on(owner):
        # Its memory is gone with its host's power; its disks are not.
        need(fault.startswith("power") or fault == "crash", f"the guest runs nowhere, and no host was lost: {lost(lab)}")
        lab.hosts[owner].run("virsh -q start web1 || { virsh -q define /root/web1.xml && virsh -q start web1; }", timeout=240)
        guest.wait_ready(swap_kib=0)
    guest.need_only_on(owner)
    guest.verify_disk()
    lab.hosts[other].wait_for("! dmsetup ls | grep -q -e -ferry", 60, f"{other} to have taken its part back")
    guest.need_open(owner)
    if owner == "a":
        lab.b.wait_for('test -z "$(lvs --noheadings vg)"', 60, "b to keep nothing")
    else:
        guest.need_fenced("a")
    need(time.time() - started < 900, "it took longer than a quarter of an hour")
    return owner


def strike(lab, host, fault):
    """What happens to whom while `host`'s ferryd stands in the middle of its change of state."""
    if fault in ("crash", *MESSAGE_FAULTS):
        return  # it has happened already
    stands = "test $(ps -o stat= -p $(systemctl show -P MainPID ferryd) | cut -c1) = T"
    host.wait_for(stands, 30, "ferryd to stand still")
    go_on = "kill -CONT $(systemctl show -P MainPID ferryd)"
    if fault == "hang":
        time.sleep(LATE_S)  # the fault itself: how late it is
        host.run(go_on)
    elif fault == "stuck":
        lab.a.wait_for('test "$(virsh -q domstate web1)" = running', 180, "the guest to go on although b stands still")
        host.run(go_on)
    elif fault == "link":
        lab.cut_link()
        host.run(go_on)
        time.sleep(LATE_S)
        lab.heal_link()
    else:
        lost_host = lab.hosts[fault.split()[1]]
        lost_host.power_off()
        if host is not lost_host:
            host.run(go_on)
        lost_host.power_on()


# --- who owns the disks ---

def records(lab, name):
    answer = lab.hosts[name].run("migrate-ctl own --json", check=False)
    disks = json.loads(answer.out)["disks"] if answer.rc == 0 and answer.out.strip() else []
    return {disk["holding"] for disk in disks if disk["vm"] == "web1"}


def settled(lab):
    open_ones = {"moving", "granting", "receiving", "prepared"}
    jobs = [job for host in lab.hosts.values() for job in json.loads(host.run("migrate-ctl jobs --json").out)["jobs"]]
    running = [job for job in jobs if job["state"] not in ("done", "failed", "aborted")]
    return not running and not any(records(lab, name) & open_ones for name in lab.hosts)


def owner_of(lab):
    """Exactly one host has it on record. Where nothing was claimed or promised away yet, it is a's without any record, and
    b may have promised not to open what it was never granted."""
    held = {name: records(lab, name) for name in lab.hosts}
    owners = [name for name, holdings in held.items() if holdings == {"owned"}]
    if not owners and not held["a"] and held["b"] <= {"revoked"}:
        return "a"
    need(len(owners) == 1, f"not exactly one owner: {held}")
    need(not any("owned" in holdings for name, holdings in held.items() if name != owners[0]), f"two owners: {held}")
    return owners[0]


def lost(lab):
    return {name: host.run("virsh -q list --all; virsh -q domstate web1 --reason", check=False).out
            for name, host in lab.hosts.items()}
