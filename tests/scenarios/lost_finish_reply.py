# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that when the destination's answer to libvirt's Finish is lost, stock libvirt leaves the guest
running on both hosts, and Ferry on exactly one: at once when the destination can be asked, and as soon as it can."""

import contextlib

from ferrylab.paths import LAB_DIR

from _guest import SMALL, Guest, need

TIMEOUT = 1800
# libvirt's number of the call that starts the guest on the destination.
FINISH3_PARAMS = 306
LIBVIRT = "unix:/run/libvirt/libvirt-sock"


def run(lab):
    with Guest(lab, **SMALL) as guest:
        stock_libvirt_runs_both(lab, guest)
    with Guest(lab, **SMALL) as guest:
        ferry_asks(lab, guest)
        ferry_waits_until_it_can_ask(lab, guest)


class Cutter:
    """tests/lab/cutreply on a host, before its libvirt."""

    def __init__(self, host, listen, options=""):
        host.put("/root/cutreply", LAB_DIR / "cutreply", 0o755)
        self.host = host
        self.process = host.spawn(f"/root/cutreply {listen} {LIBVIRT} {FINISH3_PARAMS} {options}")
        host.wait_for(lambda: self.count("listening"), 30, "cutreply to listen")

    def count(self, word):
        need(self.process.poll() is None, f"cutreply has ended: {self.process.out}")
        return self.process.out.split().count(word)

    def need_one_cut(self):
        need(self.count("cut") == 1, f"not exactly one reply was lost: {self.process.out}")

    def stop(self):
        self.process.stop()


def stock_libvirt_runs_both(lab, guest):
    """The control. Without it nobody knows that the reply was lost at the wrong moment."""
    lab.log("--- stock libvirt")
    guest.create_volumes(lab.b)
    cutter = Cutter(lab.b, f"tcp:{lab.b.address}:16509")
    with guest.watched() as observer:
        moved = lab.a.run("virsh migrate --live --p2p --copy-storage-all --persistent web1 qemu+tcp://b/system "
                          f"--migrateuri tcp://{lab.b.address}", check=False, timeout=600)
        need(moved.rc != 0, f"virsh says that the guest has moved, although the answer was lost: {moved}")
        cutter.need_one_cut()
        states = {name: host.run("virsh -q domstate --reason web1").out.strip() for name, host in lab.hosts.items()}
        lab.log(f"virsh: {moved.err.strip()}; then {states}")
        for name in lab.hosts:
            need(guest.runs_on(name), f"the guest does not run on {name}, so this is no control: {states}")
        need_both_write(lab, guest)
    cutter.stop()
    faults = observer.result["faults"]
    need(any("two copies run" in fault["text"] for fault in faults), f"the observer did not see two copies: {faults}")


def need_both_write(lab, guest):
    def beats():
        """Of both copies; nothing as long as they are not of one and the same guest."""
        now = {name: guest.beat(name) for name in lab.hosts}
        return now if all(now.values()) and now["a"]["boot_id"] == now["b"]["boot_id"] else None

    before = lab.a.wait_for(beats, 60, "signs of life of one guest on both hosts")

    def written():
        now = beats() or before
        grown = {name: {field: now[name][field] - before[name][field] for field in ("sequence", "records_acked")}
                 for name in lab.hosts}
        return grown if all(n > 0 for fields in grown.values() for n in fields.values()) else None

    grown = lab.a.wait_for(written, 60, "signs of life and records of both copies")
    lab.log(f"two copies of one guest run and write: {grown}")


@contextlib.contextmanager
def libvirt_behind_cutter(host, options=""):
    """The host's ferryd reaches its libvirt, on behalf of its peer, only through a cutter."""
    cutter = Cutter(host, "unix:/run/cutreply.sock", options)
    host.run("cp /etc/ferry/ferry.conf /run/ferry.conf.before && "
             "echo libvirt-socket = /run/cutreply.sock >>/etc/ferry/ferry.conf && systemctl restart ferryd")
    yield cutter
    host.run("cp /run/ferry.conf.before /etc/ferry/ferry.conf && systemctl restart ferryd")
    cutter.stop()


def ferry_asks(lab, guest):
    lab.log("--- Ferry")
    with libvirt_behind_cutter(lab.b) as cutter, guest.watched() as observer:
        _, job = guest.migrate("a", "b", "--create")
        cutter.need_one_cut()
        need_moved(lab, guest, "a", "b", job)
    need_one_switch(observer.result)


def ferry_waits_until_it_can_ask(lab, guest):
    """And back. The answer is lost, and a's libvirt cannot be asked for a while: b must neither give up nor guess."""
    lab.log("--- Ferry, the other way, and nobody answers at first")
    with libvirt_behind_cutter(lab.a, "--deaf") as cutter, guest.watched() as observer:
        command = lab.b.spawn("migrate-ctl migrate web1 a --json >/run/job.json")
        lab.a.wait_for(lambda: cutter.count("refused") >= 2, 600, "b to have asked a in vain twice")
        need(command.poll() is None, f"the migration ended before anybody knew where the guest runs: {command.out}")
        need(not guest.runs_on("b"), "the guest runs on b, and nobody had told b that it does not run on a")
        cutter.process.signal("USR1")
        need(command.wait(600, check=False).rc == 0, f"migrate-ctl did not end with 0: {command.out}")
        cutter.need_one_cut()
        job = lab.b.wait_for_job(lambda job: job["state"] == "done", "the job to be done")
        need_moved(lab, guest, "b", "a", job)
    need_one_switch(observer.result)


def need_moved(lab, guest, source, destination, job):
    need(job["owner"] == "destination" and not job["error"], f"the job is not simply done: {job}")
    guest.need_only_on(destination)
    guest.need_owner(destination)
    known = lab.hosts[source].run("virsh -q list --all --name").out.split()
    need("web1" not in known, f"libvirt on {source} still knows the guest that has left")
    guest.need_fenced(source)
    guest.need_open(destination)
    guest.verify()


def need_one_switch(result):
    need(result["ok"], f"signs of life: {result['faults']}")
    need(len(result["switches"]) == 1, f"not exactly one switch: {result['switches']}")
