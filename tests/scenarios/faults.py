# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that whatever breaks at a change of state of a migration, on either side, exactly one host owns
the disks afterwards, the guest runs there or can be started there with all that was acknowledged, without an operator,
and nothing is left behind.

A fault strikes while ferryd stands still in the middle of the change: it crashes; it hangs and goes on late; the link
is cut under it; one of the hosts loses power. Besides, each message of a good migration is lost (with its connection, as
on TCP) or comes twice, and a destination stands still for longer than the source waits. What mends a first fault is
broken by a second one. Each case moves the guest away from wherever the one before has left it. FERRY_FAULTS=all runs
all of them (hours), another value those cases whose name contains one of its words, separated by commas; without it the
cases of QUICK. Results: build/results/faults.json."""

import collections
import json
import os
import time

from ferrylab.paths import REPO, LabError

from _guest import SMALL, Guest, need, other

DURABLE = True
TIMEOUT = 1800 if not os.environ.get("FERRY_FAULTS") else 6 * 3600
LIBRARY = REPO / "build/tests/fault/libferry-fault-points.so"
RESULTS = REPO / "build/results/faults.json"

# The changes of state of a migration that goes well, in their order (docs/ownership.md).
POINTS = {
    "source": ["idle", "connecting", "preparing", "claiming", "attaching", "precopy", "switching", "paused", "freezing",
               "final_round", "awaiting_ready", "fencing", "committing", "granting", "completing", "verifying", "finishing",
               "done"],
    "destination": ["idle", "claiming", "preparing", "receiving", "flushing", "promising", "ready", "accepting", "opening",
                    "open", "verifying", "open", "cleaning", "finished"],
}
FAULTS = ("crash", "hang", "link", "power source", "power destination")
MESSAGES = {"source": ("prepare", "close_gate", "ready?", "grant", "digests?", "finish"),
            "destination": ("prepared", "ready", "opened", "digests", "finished")}
MESSAGE_FAULTS = ("drop", "duplicate")
# Neither ferryd ends: what breaks can be made good up to the last comparison.
MENDED = ("hang", "link", "stuck", *MESSAGE_FAULTS)
AT_ONCE = ("crash", *MESSAGE_FAULTS)  # ferryd commits them itself; for the others it stands still
# Where the destination keeps a guest waiting that stands still already.
STUCK = ("destination: receiving -> flushing", "destination: flushing -> promising", "destination: promising -> ready")
# What breaks while the disks are copied is in `interrupted`.
QUICK = ["crash source: committing -> granting", "crash destination: promising -> ready",
         "hang source: committing -> granting", "link destination: accepting -> opening"]
# Each case copies it anew.
TINY = SMALL | {"data_mib": 16, "swap_mib": 16, "options": "guest.memory_mib=24 guest.memory_rate=8 guest.disk_rate=8"}
# Longer than a link needs to be given up, and than a frozen disk is held for a daemon that is late.
LATE_S = 30


class Case(collections.namedtuple("Case", "side fault point after", defaults=(None,))):
    """`side`: of the ferryd in which it strikes; `after`: the case that comes before it in the same migration."""

    @property
    def name(self):
        return f"{self.fault} {self.point}" + (f" after {self.after.name}" if self.after else "")

    @property
    def plan(self):
        """The line that tells the fault point."""
        return f"{self.fault if self.fault in AT_ONCE else 'hang'} {self.point}"

    @property
    def may_lose_the_guest(self):
        """A guest whose memory was on its way is gone with its host's power or its client."""
        return self.fault == "crash" or self.fault.startswith("power") or bool(self.after and self.after.may_lose_the_guest)


# What goes wrong first, and the changes of state that mend it. The disks are handed back, since the guest does not start;
# the destination promises never to open; it keeps the disks, since nobody can tell that the guest did not write there.
MENDING = (
    (Case("destination", "link", "destination: accepting -> opening"), {
        "source": ["granting", "resolving", "completing", "returning", "reclaiming", "rolling_back"],
        "destination": ["opening", "open", "yielding", "returning", "cleaning"]}),
    (Case("source", "link", "source: committing -> granting"), {
        "source": ["granting", "resolving", "reclaiming", "rolling_back"],
        "destination": ["ready", "revoking", "cleaning"]}),
    (Case("destination", "crash", "destination: opening -> open"), {
        "source": ["returning", "conceding", "finishing"]}),
)


def at_changes(points, after=None):
    for side, states in points.items():
        for state, following in zip(states, states[1:]):
            for fault in FAULTS:
                yield Case(side, fault, f"{side}: {state} -> {following}", after)


def all_cases():
    yield from at_changes(POINTS)
    for side, messages in MESSAGES.items():
        for message in messages:
            for fault in MESSAGE_FAULTS:
                yield Case(side, fault, f"message: {message}")
    for point in STUCK:
        yield Case("destination", "stuck", point)
    for first, points in MENDING:
        yield from at_changes(points, first)


def chosen():
    wanted = os.environ.get("FERRY_FAULTS")
    if wanted == "all":
        return list(all_cases())
    if not wanted:
        return [case for case in all_cases() if case.name in QUICK]
    return [case for case in all_cases() if any(word in case.name for word in wanted.split(","))]


def run(lab):
    cases = chosen()
    need(cases, f"FERRY_FAULTS={os.environ.get('FERRY_FAULTS')} chooses nothing")
    for host in lab.hosts.values():
        host.put("/root/fault.so", LIBRARY, 0o755)
        # On the disk: a host that loses power has to come back with it.
        host.put("/etc/systemd/system/ferryd.service.d/fault.conf",
                 "[Service]\nEnvironment=LD_PRELOAD=/root/fault.so\nProtectHome=no\nRestartSec=1\n")
        host.run("systemctl daemon-reload && systemctl restart ferryd")
    rows = []
    with Guest(lab, **TINY) as guest:
        source = "a"
        for case in cases:
            rows.append(one(lab, guest, source, case))
            write(rows)
            source = rows[-1]["next"]
        # Nothing that a fault left is in the way of going at last.
        guest.migrate(source, other(source), "--create")
        guest.need_only_on(other(source))
        guest.verify_disk()
    bad = [f"{row['case']}: {row['why']}" for row in rows if not row["passed"]]
    need(not bad, "; ".join(bad))


def write(rows):
    good = sum(row["passed"] for row in rows)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"cases": len(rows), "passed": good, "failed": len(rows) - good, "rows": rows}, indent=1))


def one(lab, guest, source, case):
    """A row of the results. Whatever the outcome, the next case finds the guest on "next" and nothing on the other."""
    began = time.monotonic()
    row = {"case": case.name, "source": source, "side": case.side, "fault": case.fault, "point": case.point,
           "after": case.after.name if case.after else "", "passed": False, "owner": "", "why": "", "next": "a"}
    try:
        row["owner"] = break_it(lab, guest, source, case)
        row["next"] = row["owner"]
        guest.tidy_volumes(other(row["owner"]))
        need_no_volumes(lab, other(row["owner"]))
        row["passed"] = True
    except (AssertionError, LabError) as error:
        row["why"] = str(error)[:400]
        guest.tidy()
        guest.start(lab.a)
        guest.wait_ready(swap_kib=0)
    row["seconds"] = round(time.monotonic() - began)
    lab.log(f"{'ok  ' if row['passed'] else 'FAIL'} {case.name}: from {source}, owner {row['owner'] or '?'}, "
            f"{row['seconds']} s {row['why']}")
    return row


def break_it(lab, guest, source, case):
    """Returns the owner afterwards."""
    destination = other(source)
    hosts = {"source": lab.hosts[source], "destination": lab.hosts[destination]}
    story = [case.after, case] if case.after else [case]
    for each in story:
        hosts[each.side].run(f"echo '{each.plan}' >>/run/ferry-fault")
    started = time.time()
    lab.hosts[source].spawn(f"migrate-ctl migrate web1 {destination} --create --keep 0 --retry-for 0 --json")
    for each in story:
        hosts[each.side].wait_for(f"! grep -qsxF '{each.plan}' /run/ferry-fault", 300, f"ferryd to come to {each.point}")
        strike(lab, hosts, hosts[each.side], each.fault)
    for each in lab.hosts.values():
        each.wait_for("systemctl is-active ferryd && migrate-ctl jobs >/dev/null", 90, f"ferryd on {each.name}")
    lab.a.wait_for(lambda: settled(lab), 300, "both hosts to have settled who owns the disks", interval=1)
    owner = owner_of(lab, source)
    if not guest.runs_on(owner):
        need(case.may_lose_the_guest, f"the guest runs nowhere, and no host was lost: {lost(lab)}")
        lab.hosts[owner].run("virsh -q start web1 || { migrate-ctl own web1 --definition >/root/lost.xml && "
                             "virsh -q define /root/lost.xml && virsh -q start web1; }", timeout=240)
        guest.wait_ready(swap_kib=0)
    guest.need_only_on(owner)
    guest.verify_disk()
    lab.hosts[other(owner)].wait_for("! dmsetup ls | grep -q -e -ferry", 60, f"{other(owner)} to have taken its part back")
    guest.need_open(owner)
    if owner == source:
        need_no_volumes(lab, destination)
    elif hosts["source"].run("test -e /dev/vg/web1", check=False).rc == 0:
        guest.need_fenced(source)
        if case.fault in MENDED and not case.after:
            copies = json.loads(lab.hosts[source].run("migrate-ctl own web1 --json").out)["disks"]
            need(all(disk["verified"] for disk in copies), f"the copies were not found equal: {said_at_end(lab, source, started)}")
    else:
        need(case.fault == "power source", f"{source}'s old volumes are not there, and it never lost its power")
    for each in lab.hosts.values():
        need_no_alarm(each, started)
    need(time.time() - started < 900, "it took longer than a quarter of an hour")
    return owner


def need_no_alarm(host, since):
    """ferryd says that somebody took a fence away, and nobody did."""
    said = host.run(f"journalctl -u ferryd -o cat --since @{int(since)} | grep -e 'was gone' -e 'lost its bar'", check=False)
    need(not said.out, f"false alarm on {host.name}: {said.out}")


def need_no_volumes(lab, name):
    lab.hosts[name].wait_for('test -z "$(lvs --noheadings vg)"', 60, f"{name} to keep nothing")


def strike(lab, hosts, host, fault):
    """What happens, and to which of `hosts` (by their side), while `host`'s ferryd stands in the middle of its change."""
    if fault in AT_ONCE:
        return  # it has happened already
    stands = "test $(ps -o stat= -p $(systemctl show -P MainPID ferryd) | cut -c1) = T"
    host.wait_for(stands, 30, "ferryd to stand still")
    go_on = "kill -CONT $(systemctl show -P MainPID ferryd)"
    if fault == "hang":
        time.sleep(LATE_S)  # the fault itself: how late it is
        host.run(go_on)
    elif fault == "stuck":
        hosts["source"].wait_for('test "$(virsh -q domstate web1)" = running', 180, "the guest to go on although the other stands still")
        host.run(go_on)
    elif fault == "link":
        lab.cut_link()
        host.run(go_on)
        time.sleep(LATE_S)
        lab.heal_link()
    else:
        lost_host = hosts[fault.split()[1]]
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


def owner_of(lab, source):
    """Exactly one host has it on record. Where nothing was claimed or promised away yet, it is the source's without any
    record, and the destination may have promised not to open what it was never granted."""
    held = {name: records(lab, name) for name in lab.hosts}
    owners = [name for name, holdings in held.items() if holdings == {"owned"}]
    if not owners and not held[source] and held[other(source)] <= {"revoked"}:
        return source
    need(len(owners) == 1, f"not exactly one owner: {held}")
    need(not any("owned" in holdings for name, holdings in held.items() if name != owners[0]), f"two owners: {held}")
    return owners[0]


def said_at_end(lab, source, since):
    return lab.hosts[source].run(f"journalctl -u ferryd -o cat --since @{int(since)} | grep 'cleaning up'", check=False).out


def lost(lab):
    return {name: host.run("virsh -q list --all; virsh -q domstate web1 --reason", check=False).out
            for name, host in lab.hosts.items()}
