# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that what was copied once is not copied again: a migration goes on after its link broke, after
ferryd crashed on either side, after its destination lost power and after a pause, and the way back takes little more
than what was written since. What is kept is closed, and goes when it is told to or when its time is over.
FERRY_LONG=1 adds two accidents, the expiry of what is kept, and the way back without the map."""

import json
import os

from _guest import MIB, SMALL, VOLUMES, Guest, need

DURABLE = True
TIMEOUT = 2400
# What the guest has written before anything is copied, so that there is something that must not be copied again.
RECORDS = 4000
LONG = os.environ.get("FERRY_LONG") == "1"


def run(lab):
    with Guest(lab, **SMALL) as guest:
        fill(lab, guest)
        goes_on(lab, guest)
        kept_and_discarded(lab, guest)
        if LONG:
            kept_and_expired(lab, guest)
        there_and_back(lab, guest)
        disk_added(lab, guest)


def fill(lab, guest):
    guest.ask("set disk_rate=400")
    lab.a.wait_for(lambda: guest.ask("report")["records_acked"] >= RECORDS, 240, "the guest to have filled its disk")
    # Its own writing must not hide what the copying costs.
    guest.ask("set disk_rate=4 memory_rate=16")


# --- what is looked at ---

def job_of(host):
    return json.loads(host.run("migrate-ctl jobs --json").out)["jobs"][-1]


def sent_mib(job):
    """Data of the disks that travelled in the job's present attempt; zeroes do not travel."""
    return sum(disk["bytes_sent"] - disk["zero_bytes"] for disk in job["disks"]) / MIB


def volumes_on(host):
    return sorted(host.run("lvs --noheadings -o lv_name vg", check=False).out.split())


def dirty_bytes(host):
    return sum(v["dirty_blocks"] * v["block_size_bytes"]
               for v in json.loads(host.run("migrate-ctl volumes --json").out)["volumes"])


def filters_on(host):
    """Their lines in the tables of the volumes."""
    return sorted(host.run("dmsetup table | grep ' ferry '", check=False).out.splitlines())


def wait_kept(lab):
    lab.b.wait_for(lambda: {d["holding"] for d in owned(lab.b)} == {"given"}, 60, "b to keep its copy")


def need_kept(lab, guest):
    """Incomplete copies lie on b, closed, and a owns the disks."""
    wait_kept(lab)
    need(all(d["barred"] for d in owned(lab.b)), f"an incomplete copy takes writes: {owned(lab.b)}")
    guest.need_fenced("b")
    guest.need_only_on("a")


def owned(host):
    answer = host.run("migrate-ctl own web1 --json", check=False)
    return json.loads(answer.out)["disks"] if answer.rc == 0 else []


def goes_on_from(lab, attempt, limit_mib, what):
    """The job's next attempt comes to its second round, and has copied little."""
    def past_first_round(job):
        need(job["state"] not in ("failed", "aborted"), f"the job ended: {job['error']}")
        return job["attempt"] > attempt and job["state"] in ("precopy", "switching") and len(job["rounds"]) >= 1

    job = lab.a.wait_for_job(past_first_round, f"the migration to go on after {what}", 240)
    lab.log(f"{what}: attempt {job['attempt']}, first round {sent_mib(job):.1f} MiB of data, "
            f"{job['rounds'][0]['bytes'] / MIB:.1f} MiB on the wire")
    need(sent_mib(job) < limit_mib, f"{sent_mib(job):.1f} MiB were copied again after {what}, more than {limit_mib}")
    return job["attempt"]


# --- a job that is interrupted again and again ---

def goes_on(lab, guest):
    # Slow enough not to end before the next accident: the memory alone takes a minute.
    lab.a.run("migrate-ctl migrate web1 b --create --bandwidth 2MiB --detach --retry-for 1h")
    whole = lab.a.wait_for_job(lambda job: len(job["rounds"]) >= 1, "the first round to end", 240)
    attempt, limit = 1, sent_mib(whole) / 3
    lab.log(f"the first round took {sent_mib(whole):.1f} MiB of data")
    for accident in (link_cut, crash_on_a, power_cut_on_b) + ((crash_on_b, paused) if LONG else ()):
        accident(lab, guest)
        attempt = goes_on_from(lab, attempt, limit, accident.__name__)
        guest.need_only_on("a")
        guest.need_green()
    lab.a.run("migrate-ctl abort web1")
    need_kept(lab, guest)
    lab.b.run("migrate-ctl release web1")
    need(volumes_on(lab.b) == [], f"released, and still there: {volumes_on(lab.b)}")


def waits(lab):
    lab.a.wait_for_job(lambda job: job["state"] == "waiting" and job["next_try_at"], "the job to wait", 120)


def link_cut(lab, guest):
    lab.cut_link()
    waits(lab)
    need_kept(lab, guest)
    lab.heal_link()


def crash_on_b(lab, guest):
    """Its gates become fences: at no instant are the volumes plain."""
    pid = "$(systemctl show -P MainPID ferryd)"
    before = filters_on(lab.b)
    lab.a.run(f"kill -STOP {pid}")  # or its next attempt puts new ones in
    lab.b.kill9("ferryd")
    wait_kept(lab)
    guest.need_fenced("b")
    need(filters_on(lab.b) == before, f"the filters are not the same: {before} and {filters_on(lab.b)}")
    lab.a.run(f"kill -CONT {pid}")


def crash_on_a(lab, _guest):
    lab.a.kill9("ferryd")
    lab.a.wait_for("migrate-ctl jobs >/dev/null", 60, "ferryd to be started again on a")


def power_cut_on_b(lab, guest):
    lab.b.power_off()
    waits(lab)
    guest.need_green()
    lab.b.power_on()
    lab.b.wait_for("test -S /run/ferry/ctl.sock", 120, "ferryd on b")


def paused(lab, guest):
    """While it waits for the link; by hand it stands still over a restart of ferryd, too."""
    lab.cut_link()
    waits(lab)
    pause(lab)
    lab.heal_link()
    lab.a.run("systemctl restart ferryd")
    job = lab.a.wait_for_job(lambda job: True, "ferryd to be there again", 60)
    need(job["state"] == "paused", f"the restart has woken it: {job}")
    need_kept(lab, guest)
    guest.need_plain("a")
    lab.a.run("migrate-ctl resume web1")


def pause(lab):
    lab.a.run("migrate-ctl pause web1")
    lab.a.wait_for_job(lambda job: job["state"] == "paused", "the job to stand still", 60)


# --- what is kept, and for how long ---

def kept_and_discarded(lab, guest):
    _, job = guest.begin_slowly("a", "b", "--create")
    pause(lab)
    need_kept(lab, guest)
    lab.a.run(f"migrate-ctl resume {job}")
    lab.a.wait_for_job(lambda job: job["state"] == "precopy", "the job to go on", 60)
    lab.a.run(f"migrate-ctl abort {job} --discard")
    lab.b.wait_for("test -z \"$(lvs --noheadings vg)\"", 60, "b to keep nothing")


def kept_and_expired(lab, guest):
    _, job = guest.begin_slowly("a", "b", "--create --keep 5")
    lab.a.run(f"migrate-ctl abort {job}")
    need_kept(lab, guest)
    lab.b.wait_for("test -z \"$(lvs --noheadings vg)\"", 150, "what is kept to expire")


# --- there and back ---

def there_and_back(lab, guest):
    _, first = guest.migrate("a", "b", "--create")
    guest.need_only_on("b")
    guest.need_open("b")
    guest.need_fenced("a")
    back(lab, guest, "b", "a", first, "by the map")
    if LONG:
        back_without_the_map(lab, guest, first)
        back(lab, guest, "b", "a", first, "by the map")
    guest.verify()


def disk_added(lab, guest):
    """A disk that the VM gets while the others are copied is copied, too: the job begins anew with all of them."""
    lab.b.run("migrate-ctl release web1 && lvremove -q -y vg/web1 vg/web1-swap")
    for host in lab.hosts.values():  # libvirt would start the guest with whatever lies there on b
        host.run("lvcreate -q -y -n more -L 8M vg && dd if=/dev/urandom of=/dev/vg/more bs=1M count=8 oflag=direct")
    sums = [lab.a.run("sha256sum </dev/vg/more").out]
    lab.a.run("migrate-ctl migrate web1 b --create --bandwidth 8MiB --detach --retry-for 1h")
    lab.a.wait_for_job(lambda job: job["state"] == "precopy" and job["progress"] > 0.01, "the first round to be under way", 90)
    lab.a.run("virsh -q attach-disk web1 /dev/vg/more vdd --live --config --cache none --subdriver raw")
    job = lab.a.wait_for_job(lambda job: job["state"] in ("done", "failed", "aborted"), "the migration to end", 600)
    need(job["state"] == "done" and job["attempt"] == 2, f"not done at the second attempt: {job}")
    guest.need_only_on("b")
    guest.need_open("b")
    guest.need_fenced("a")
    sums.append(lab.b.run("sha256sum </dev/vg/more").out)
    need(sums[0] == sums[1], f"the disk that was added is not the same: {sums}")
    guest.verify()


def back_without_the_map(lab, guest, first):
    """Both copies are compared."""
    for volume in VOLUMES:
        lab.a.run(f"migrate-ctl detach /dev/vg/{volume}")
    guest.need_plain("a")
    back(lab, guest, "a", "b", first, "by comparison")


def back(lab, guest, source, destination, first, how):
    host = lab.hosts[source]
    guest.ask("pause")
    written = dirty_bytes(host)
    _, job = guest.migrate(source, destination)
    guest.ask("resume")
    guest.need_only_on(destination)
    guest.need_fenced(source)
    guest.verify_disk()
    wire = sum(r["bytes"] for r in job["rounds"])
    lab.log(f"back {how}: {wire / MIB:.2f} MiB on the wire, {sent_mib(job):.2f} MiB of data; written since: {written / MIB:.2f} MiB; "
            f"there: {sent_mib(first):.1f} MiB")
    if how == "by the map":
        need(sent_mib(job) * MIB <= 1.05 * written + MIB, f"more than what was written since travelled: {job['rounds']}")
    need(sent_mib(job) < sent_mib(first) / 2, f"nearly everything was copied again: {job['rounds']}")
