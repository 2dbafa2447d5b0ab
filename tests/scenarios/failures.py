# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that whatever goes wrong before the switchover leaves the guest running on a with all its
checks green, the plain tables back on both hosts, nothing left behind, and the right message and exit status."""

import json

from _guest import MIB, Guest, need

TIMEOUT = 1500


def run(lab):
    with Guest(lab) as guest:
        for case in (unknown_vm, unknown_host, missing_volume, small_volume, busy_volume, already_attached, wrong_key,
                     daemon_down, abort_in_precopy, ctrl_c_in_precopy, link_cut_in_precopy, dry_run):
            lab.log(f"--- {case.__name__}")
            case(lab, guest)
            guest.need_only_on("a")
            guest.need_plain("a")
            guest.need_no_leftovers("b")
            guest.need_green()
        guest.verify()


def fails(guest, code, words, destination="b", options="", vm=None):
    name = vm or "web1"
    run = guest.lab.a.run(f"migrate-ctl migrate {name} {destination} {options}", check=False, timeout=120)
    said = run.out + run.err
    need(run.rc == code, f"exit status {run.rc} instead of {code}: {said}")
    for word in words:
        need(word in said, f"the message lacks \"{word}\": {said}")


def no_volumes_on_b(guest):
    left = guest.lab.b.run("lvs --noheadings -o lv_name vg").out.split()
    need(left == [], f"volumes are left on b: {left}")


def unknown_vm(_lab, guest):
    fails(guest, 3, ["nosuch"], vm="nosuch")


def unknown_host(_lab, guest):
    fails(guest, 1, ["nowhere"], destination="nowhere", options="--create")


def missing_volume(_lab, guest):
    fails(guest, 3, ["/dev/vg/web1", "--create"])
    no_volumes_on_b(guest)


def small_volume(lab, guest):
    too_small = guest.data_mib - 4
    guest.create_volumes(lab.b, too_small)
    fails(guest, 1, ["/dev/vg/web1", str(too_small * MIB), "lvextend"])
    lab.b.run("lvremove -q -y vg/web1 vg/web1-swap")


def busy_volume(lab, guest):
    guest.create_volumes(lab.b)
    lab.b.run("mke2fs -q /dev/vg/web1 && mount /dev/vg/web1 /mnt")
    fails(guest, 4, ["/dev/vg/web1", "in use"])
    lab.b.run("umount /mnt; lvremove -q -y vg/web1 vg/web1-swap")


def already_attached(lab, guest):
    lab.a.run("migrate-ctl attach /dev/vg/web1")
    hint = "migrate-ctl detach /dev/mapper/vg-web1"
    fails(guest, 4, ["vg-web1 already carries the filter", hint], options="--create")
    lab.a.run(hint)
    no_volumes_on_b(guest)


def wrong_key(lab, guest):
    saved = lab.b.run("cd /etc/ferry/pki && mkdir /run/pki && cp -a . /run/pki && echo ok").out
    need(saved.strip() == "ok", saved)
    for name, content in lab.identity.foreign_pki("b", "10.77.0.2").items():
        lab.b.put(f"/etc/ferry/pki/{name}", content, 0o600)
    lab.b.run("systemctl restart ferryd")
    fails(guest, 3, ["certificate", "CA"], options="--create")
    lab.b.run("cp -a /run/pki/. /etc/ferry/pki/ && rm -r /run/pki && systemctl restart ferryd")
    no_volumes_on_b(guest)


def daemon_down(lab, guest):
    lab.b.run("systemctl stop ferryd")
    fails(guest, 1, ["ferryd"], options="--create")
    lab.b.run("systemctl start ferryd")
    lab.b.wait_for("test -S /run/ferry/ctl.sock", 30, "ferryd on b")


def need_end(lab, guest, command, code, state, timeout=90):
    done = command.wait(timeout, check=False)
    need(done.rc == code, f"exit status {done.rc} instead of {code}: {done.out}")
    job = json.loads(lab.a.run("migrate-ctl jobs --json").out)["jobs"][-1]
    need(job["state"] == state, f"the job is {job['state']} instead of {state}: {job}")
    need(job["error"]["message"], "no message")
    lab.b.wait_for("! dmsetup ls | grep -q -e -ferry && test -z \"$(lvs --noheadings vg)\"", 60,
                   "b to have taken everything back")
    no_volumes_on_b(guest)
    return job


def abort_in_precopy(lab, guest):
    command, job = guest.begin_slowly("a", "b", "--create --keep 0 --retry-for 0")
    lab.a.run(f"migrate-ctl abort {job}")
    need_end(lab, guest, command, 1, "aborted")


def ctrl_c_in_precopy(lab, guest):
    command, _job = guest.begin_slowly("a", "b", "--create --keep 0 --retry-for 0")
    lab.a.run("pkill -INT -x migrate-ctl")
    need_end(lab, guest, command, 1, "aborted")


def link_cut_in_precopy(lab, guest):
    command, _job = guest.begin_slowly("a", "b", "--create --keep 0 --retry-for 0")
    lab.cut_link()
    try:
        done = command.wait(90, check=False)
        need(done.rc == 1, f"exit status {done.rc} instead of 1: {done.out}")
        guest.need_plain("a")
        lab.b.wait_for("! dmsetup ls | grep -q -e -ferry", 60, "b to have taken everything back")
    finally:
        lab.heal_link()
    need_end(lab, guest, command, 1, "failed")
    lab.a.wait_for("migrate-ctl doctor --peer b >/dev/null", 60, "the link to be up again")


def dry_run(lab, guest):
    run = lab.a.run("migrate-ctl migrate web1 b --create --dry-run --json")
    plan = json.loads(run.out)
    need({d["target"]: d["role"] for d in plan["disks"]} == {"vda": "data", "vdb": "swap", "vdc": "scratch"},
         f"roles: {plan['disks']}")
    need(all(d["method"] == "in-place" for d in plan["disks"] if d["role"] != "scratch"), str(plan["disks"]))
    no_volumes_on_b(guest)
    missing = lab.a.run("migrate-ctl migrate web1 b --dry-run", check=False)
    need(missing.rc == 3, f"a dry run that would fail ended with {missing.rc}: {missing.out}{missing.err}")
