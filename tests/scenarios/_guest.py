# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest of the migration scenarios: its volumes, its domain, its checks, and the observer outside."""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "guest"))
import beatdisk  # noqa: E402
from lab_guest import LabGuest  # noqa: E402

MIB = 1 << 20
DATA_MIB, SWAP_MIB, MEMORY_MIB = 64, 192, 96
VOLUMES = ("web1", "web1-swap")
# What must be in swap before a migration begins: the guest really needs its swap disk then.
SWAP_WANTED_MIB = 32
# At its own full rates the guest takes the emulated host's processor from the copying, and a migration lasts twice as
# long. What it works on still does not fit into its memory.
RATES = "guest.disk_rate=16 guest.memory_rate=128"
# For scenarios that are about the hand-over and not about the load: quick to copy, and it hardly swaps.
SMALL = {"data_mib": 48, "swap_mib": 48, "swap_wanted_mib": 0,
         "options": "guest.memory_mib=24 guest.memory_rate=32 guest.disk_rate=16"}


class Wrong(AssertionError):
    """Something that had to hold does not."""


def need(condition, text):
    if not condition:
        raise Wrong(text)


def other(host):
    """The name of the other host."""
    return "b" if host == "a" else "a"


class Guest(LabGuest):
    """`with Guest(lab) as guest:` runs it on host a; at the end everything of it is gone from both hosts."""

    def __init__(self, lab, data_mib=DATA_MIB, swap_mib=SWAP_MIB, swap_wanted_mib=SWAP_WANTED_MIB, options=RATES,
                 **others):
        super().__init__(lab, "web1", data_mib, swap_mib, memory_mib=MEMORY_MIB, options=options, **others)
        self.swap_wanted_mib = swap_wanted_mib

    def __enter__(self):
        self.tidy()
        self.start(self.lab.a)
        self.wait_ready(swap_kib=self.swap_wanted_mib * 1024)
        self.lab.log(f"guest: runs on a, {self.swap_in_use_mib():.0f} MiB of swap in use")
        return self

    def __exit__(self, kind, *_rest):
        if kind is None:
            self.tidy()

    def tidy(self):
        """Takes guest, fences and volumes off both hosts."""
        for name, host in self.lab.hosts.items():
            host.run("virsh -q destroy web1; virsh -q undefine web1", check=False)
            self.tidy_volumes(name)

    def tidy_volumes(self, name):
        """Takes fences and volumes off one host, which the guest must not run on."""
        # A host that was booted again does not activate what another one owns.
        self.lab.hosts[name].run(f"for v in {' '.join(VOLUMES)}; do lvs vg/$v >/dev/null 2>&1 || continue; "
                                 "migrate-ctl release /dev/vg/$v --unverified; lvremove -q -y vg/$v; done", check=False)

    # --- what it says of itself ---

    def beat(self, host):
        return beatdisk.read_beat(self.beats[host])

    def swap_in_use_mib(self):
        """As its newest sign of life says."""
        beats = [b for b in map(beatdisk.read_beat, self.beats.values()) if b]
        return max(beats, key=lambda b: b["sequence"])["swap_used_kib"] / 1024

    def verify(self):
        """The guest reads back every record and every page. Raises unless all are right."""
        return self._green("verify")

    def verify_disk(self):
        """Every record on the disk; the pages are checked by the guest's own work, whose faults count as well."""
        return self._green("verify disk")

    def need_green(self):
        """Neither the records nor the pages that its workers have read back so far were wrong."""
        return self._green("report")

    def _green(self, command):
        answer = self.ask(command)
        need(answer["ok"], f"the guest found errors: {json.dumps(answer)}")
        return answer

    def watched(self):
        """The observer outside: `with guest.watched() as observer: …; observer.result`."""
        return self.observe(self.lab.exchange / "observer.json")

    # --- where it is ---

    def runs_on(self, host):
        return self.is_running(self.lab.hosts[host])

    def need_only_on(self, host):
        need(self.runs_on(host), f"the guest does not run on {host}")
        need(not self.runs_on(other(host)), f"the guest runs on {other(host)}, too")
        seen = self.beat(host)
        need(beatdisk.alive(self.beats[host], seen, 10), f"no sign of life on {host}")
        there = self.beat(other(host))
        if there:
            need(not beatdisk.alive(self.beats[other(host)], there, 0.3), f"signs of life on {other(host)}")

    def need_owner(self, owner):
        """What both hosts have on record about the disks, and the state of the volumes, fit: they are `owner`'s."""
        for name, host in self.lab.hosts.items():
            mine = name == owner
            disks = json.loads(host.run("migrate-ctl own web1 --json").out)["disks"]
            need([disk["target"] for disk in disks] == ["vda", "vdb"], f"records on {name}: {disks}")
            for disk in disks:
                need(disk["holding"] == ("owned" if mine else "given"), f"{name} holds it wrongly: {disk}")
                need(disk["owner_host"] == owner, f"{name} takes another host than {owner} for the owner: {disk}")
                need(disk["barred"] == disk["must_be_barred"] == (not mine), f"barred or not on {name}: {disk}")

    # --- its volumes ---

    def table(self, host, volume):
        return self.lab.hosts[host].run(f"dmsetup table vg-{volume.replace('-', '--')}").out.strip()

    def need_open(self, host):
        """The owner's volumes take writes; the filter may be there, but only to note what is written."""
        attached = json.loads(self.lab.hosts[host].run("migrate-ctl volumes --json").out)["volumes"]
        states = {v["name"]: v["state"] for v in attached}
        for volume in VOLUMES:
            name = f"vg-{volume.replace('-', '--')}"
            need(states.get(name, "tracking") == "tracking", f"{volume} on {host} is {states.get(name)}")
        self.need_no_leftovers(host)

    def need_plain(self, host):
        """No filter is left in the volumes and no device of ours besides them."""
        for volume in VOLUMES:
            table = self.table(host, volume)
            need(all(line.split()[2] == "linear" for line in table.splitlines()),
                 f"{volume} on {host} is not plain again: {table}")
        self.need_no_leftovers(host)

    def need_no_leftovers(self, host):
        names = self.lab.hosts[host].run("dmsetup ls").out
        need("-ferry" not in names, f"devices of a migration are left on {host}: {names}")
        tags = self.lab.hosts[host].run("lvs --noheadings -o lv_name,lv_tags vg", check=False).out
        need("ferry_for_" not in tags, f"tags of a migration are left on {host}: {tags}")

    def need_fenced(self, host):
        """Writing to the volumes fails, reading does not."""
        for volume in VOLUMES:
            path = f"/dev/vg/{volume}"
            read = self.lab.hosts[host].run(f"dd if={path} of=/dev/null bs=4k count=1 iflag=direct", check=False)
            need(read.rc == 0, f"{path} on {host} cannot be read: {read.err}")
            write = self.lab.hosts[host].run(
                f"dd if={path} of=/run/sector bs=4k count=1 iflag=direct && "
                f"dd if=/run/sector of={path} bs=4k count=1 oflag=direct conv=notrunc", check=False)
            need(write.rc != 0, f"{path} on {host} takes writes after the guest has left")

    # --- moving it ---

    def migrate(self, source, destination, options="", check=True, timeout=900):
        """Runs migrate-ctl on `source`; returns (Run, job as a dict or None)."""
        run = self.lab.hosts[source].run(f"migrate-ctl migrate web1 {destination} --json {options}",
                                         check=False, timeout=timeout)
        job = None
        try:
            job = json.loads(run.out) if run.out.strip() else None
        except ValueError:
            raise Wrong(f"migrate-ctl --json printed no JSON: {run.out}{run.err}") from None
        if check:
            need(run.rc == 0, f"migrate-ctl ended with {run.rc}: {run.err or run.out}")
            need(job["state"] == "done", f"the job is {job['state']}: {job}")
            need_equal_digests(job)
        return run, job


    def begin_slowly(self, source, destination, options="--keep 0 --retry-for 0"):
        """A migration that has copied something and still has minutes to go: (background command, job id). As it is
        asked for here, it leaves nothing behind when it is called off, and is not tried again."""
        host = self.lab.hosts[source]
        command = host.spawn(f"migrate-ctl migrate web1 {destination} --json --bandwidth 1MiB {options}")

        def copying(job):
            need(command.poll() is None, f"the migration ended by itself: {command.out}")
            return job["state"] == "precopy" and job["progress"] > 0.01

        return command, host.wait_for_job(copying, "the first round to be under way", 90)["id"]


def need_equal_digests(job):
    for disk in job["disks"]:
        if disk["role"] != "scratch":
            need(disk["digest_equal"] is True and disk["digest_source"] == disk["digest_destination"],
                 f"digests of {disk['name']} differ: {disk}")
