# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: run directory, hosts, the link between them, and the tidying up."""

import atexit
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

from . import accel, identity, initramfs, kernels, layer, tree
from .host import Host
from .paths import LAB_DIR, LabError, cache_dir, run_base, stage_dir

HOSTS = {"a": "10.77.0.1", "b": "10.77.0.2"}
_MIB = 1 << 20
_PV_BYTES = 4096 * _MIB
_UPPER_BYTES = 1024 * _MIB

# What QEMU emulates slowly is not there. With "erms" the kernel clears and copies byte by byte: six times slower than
# by words. AVX costs ChaCha20 and SHA-256 half of their speed, and each switch to a guest and back its XSAVE area. A
# fifth level of page tables makes every walk longer, a nested one twice.
_EMULATED_CPU = "max," + ",".join(f"{flag}=off" for flag in (
    "erms", "la57", "xsave", "avx", "avx2", "f16c", "fma", "vaes", "pku", "mpx"))


@dataclasses.dataclass
class Options:
    kernel: str = "6.1"
    memory: str = "2G"
    hosts: int = 2
    cpus: int = 0                               # of each host; 0: 2 for one host, 1 each for two
    scratch: tuple[tuple[str, int], ...] = ()   # (serial, bytes) of extra disks of every host
    durable: bool = False                       # what the hosts write survives a power cut
    private: bool = False                       # do not wait for other labs of this machine
    keep: bool = False                          # leave the run directory in place
    time_limit_s: int = 3600
    kept_up: bool = False                       # `lab up`: others may use it and end it


class Lab:
    """`with Lab(Options()) as lab:` has booted hosts inside and nothing left behind after."""

    def __init__(self, options: Options, log=None) -> None:
        self.options = options
        self.log = log or (lambda text: print(text, file=sys.stderr, flush=True))
        self.hosts: dict[str, Host] = {}
        self.info: dict = {}
        self.kernel: dict = {}                  # see kernels.ensure()
        self.dir = pathlib.Path()
        self.exchange = pathlib.Path()          # the same directory as /exchange in the hosts
        self.kver = ""
        self.accel = ""
        self.identity: identity.Identity | None = None
        self._lock = None
        self._attached = False

    @property
    def a(self) -> Host:
        return self.hosts["a"]

    @property
    def b(self) -> Host:
        return self.hosts["b"]

    # --- life ---

    def __enter__(self) -> "Lab":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_exc) -> None:
        self.stop()

    def start(self) -> None:
        began = time.monotonic()
        self.info = tree.ensure(log=self.log)
        base = run_base()
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.options.private:
            self._take_lock(base)
        _sweep(base)
        self.dir = base / f"{os.getpid()}-{time.time_ns() % 100000}"
        if len(str(self.dir)) > 80:
            raise LabError(f"{self.dir} is too long a path for unix sockets; set FERRY_LAB_DIR")
        self.dir.mkdir(mode=0o700)
        (self.dir / "owner").write_text(str(os.getpid()))
        atexit.register(self.stop)
        self._prepare()
        prepared = time.monotonic()
        for host in self.hosts.values():
            host.start()
            if self.options.hosts > 1:
                self._wait_for_link_socket(host)
        for host in self.hosts.values():
            uptime = host.wait_ready()
            self.log(f"lab: host {host.name} ready after {time.monotonic() - prepared:.1f} s "
                     f"({uptime:.1f} s of its own time)")
        self._share_capabilities()
        self._publish()
        self.log(f"lab: up in {time.monotonic() - began:.1f} s "
                 f"(preparation {prepared - began:.1f} s), {self.accel}, Linux {self.kver}")

    def stop(self) -> None:
        """Ends everything. May be called twice."""
        if self._attached:
            return
        for host in self.hosts.values():
            host.kill()
        self.hosts = {}
        if self.dir != pathlib.Path() and not self.options.keep:
            shutil.rmtree(self.dir, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        atexit.unregister(self.stop)

    @classmethod
    def attach(cls, log=None, only_kept: bool = True) -> "Lab":
        """The lab that `lab up` keeps running, or any that runs."""
        for state in run_base().glob("*/state.json"):
            known = json.loads(state.read_text())
            if not _is_alive(known["owner"]) or only_kept and not known["kept_up"]:
                continue
            lab = cls(Options(**known["options"]), log)
            lab._attached, lab.dir = True, state.parent
            lab.kver, lab.accel, lab.info = known["kver"], known["accel"], known["info"]
            lab.exchange = lab.dir / "exchange"
            lab.identity = identity.Identity(lab.dir / "keys")
            lab.hosts = {name: Host(name, lab.dir / name, config)
                         for name, config in known["hosts"].items()}
            return lab
        raise LabError("no lab is up; start one with `tests/lab/lab up`")

    def _publish(self) -> None:
        """Lets other processes attach."""
        state = {"owner": os.getpid(), "kept_up": self.options.kept_up,
                 "options": dataclasses.asdict(self.options),
                 "kver": self.kver, "accel": self.accel, "info": self.info,
                 "hosts": {name: host.config for name, host in self.hosts.items()}}
        target = self.dir / "state.json"
        target.with_suffix(".new").write_text(json.dumps(state))
        target.with_suffix(".new").rename(target)

    # --- what scenarios use ---

    def cut_link(self) -> None:
        """Pulls the cable between the hosts: both see their carrier go."""
        self._set_link(False)

    def heal_link(self) -> None:
        self._set_link(True)

    def collect_logs(self, directory: pathlib.Path) -> pathlib.Path:
        shutil.rmtree(directory, ignore_errors=True)
        for host in self.hosts.values():
            host.collect_logs(directory / host.name)
        return directory

    def check_health(self) -> None:
        """At the end of a scenario: kernels without complaint, emulation without error."""
        for host in self.hosts.values():
            if not host.alive() or not host.powered:
                continue
            host.dmesg_check()
            host.run("touch /run/lab-vector.stop", check=False)
            text = host.wait_for("grep -h ^end /run/lab-vector.out && cat /run/lab-vector.out", 60,
                                 "the register probe").out
            if "ERROR" in text or "turns" not in text:
                raise LabError(f"host {host.name}: the machine corrupts vector registers; "
                               f"nothing seen in this lab can be believed:\n{text}")

    def restage(self) -> None:
        """Brings the files of the stage directory, as they are now, into running hosts."""
        fresh = self.dir / "restage"
        shutil.rmtree(fresh, ignore_errors=True)
        _copy_stage(stage_dir(), fresh)
        packed = subprocess.run(["tar", "-C", fresh, "--owner=0", "--group=0", "-c", "."],
                                check=True, capture_output=True).stdout
        for host in self.hosts.values():
            host.put("/run/lab-stage.tar", packed)
            host.run("tar -C / --no-overwrite-dir --unlink-first -xf /run/lab-stage.tar && "
                     "rm /run/lab-stage.tar && systemctl daemon-reload")

    # --- inside ---

    def _take_lock(self, base: pathlib.Path) -> None:
        self._lock = open(base / "lock", "a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            self.log(f"lab: another lab runs on this machine (process {self._lock.read().strip()});"
                     " waiting for its end. `lab down` ends one that `lab up` started")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _prepare(self) -> None:
        self.kernel = kernels.ensure(self.options.kernel, self.log)
        self.kver = self.kernel["kver"]
        self.accel, why = accel.choose()
        self.log(f"lab: accelerator {self.accel}: {why}")
        root = pathlib.Path(self.info["tree"])
        stage = self.dir / "stage"
        _copy_stage(stage_dir(), stage)
        self._build_vector_probe(stage)
        tree.make_image(stage, self.dir / "stage.img")
        self.exchange = self.dir / "exchange"
        self.exchange.mkdir()
        keys = identity.Identity.make(self.dir / "keys", HOSTS)
        self.identity = keys
        common = initramfs.build(root, pathlib.Path(self.kernel["modules"]))
        for name in list(HOSTS)[:self.options.hosts]:
            directory = self.dir / name
            directory.mkdir()
            env = {"LAB_USER_MAC": _mac(name, 0), "LAB_LINK_MAC": _mac(name, 1),
                   "LAB_LINK_ADDRESS": HOSTS[name], "LAB_KERNEL": "1" if self.kernel.get("image") else "",
                   "LAB_DURABLE": "1" if self.options.durable else ""}
            (directory / "initrd").write_bytes(
                common + layer.build(name, HOSTS, keys, root, stage, env, self._capabilities()))
            config = {"address": HOSTS[name], "tree": str(root), "port": _free_port(), "key": str(keys.key_file),
                      "known_hosts": str(keys.known_hosts),
                      "time_limit_s": self.options.time_limit_s}
            config["argv"] = self._qemu_argv(name, directory, config["port"])
            self.hosts[name] = Host(name, directory, config)

    def _qemu_argv(self, name: str, directory: pathlib.Path, port: int) -> list[str]:
        quiet = ("console=ttyS0 loglevel=5 mitigations=off net.ifnames=0 audit=0 panic=-1 "
                 # All that a debug kernel says between two looks at it.
                 "log_buf_len=4M "
                 # The emulated clock of a starved vCPU must not look like a kernel fault.
                 "no_timer_check watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=180 "
                 + self._tick() +
                 "systemd.show_status=0 systemd.unit=lab.target idle=halt")
        cpu = (["-accel", "kvm", "-cpu", "host"] if self.accel == "kvm"
               else ["-accel", "tcg,thread=multi", "-cpu", _EMULATED_CPU])
        argv = ["qemu-system-x86_64", "-name", f"ferry-{name}", "-M", "pc", *cpu,
                "-smp", str(self._cpus()), "-m", self.options.memory, "-nodefaults",
                "-display", "none", "-no-reboot", "-rtc", "base=utc,clock=host",
                "-kernel", self.kernel["vmlinuz"],
                "-initrd", str(directory / "initrd"), "-append", quiet,
                "-chardev", f"file,id=console,path={directory}/console.log,append=on",
                "-serial", "chardev:console",
                "-chardev", f"socket,id=shell,path={directory}/shell.sock,server=on,wait=off",
                "-serial", "chardev:shell",
                "-qmp", f"unix:{directory}/qmp.sock,server=on,wait=off",
                "-netdev", f"user,id=user,hostfwd=tcp:127.0.0.1:{port}-:22",
                "-device", f"virtio-net-pci,id=eth0,netdev=user,mac={_mac(name, 0)},romfile="]
        if self.options.hosts > 1:
            side = "on" if name == "a" else "off"
            argv += ["-netdev", f"stream,id=link,server={side},addr.type=unix,"
                                f"addr.path={self.dir}/link.sock",
                     "-device", f"virtio-net-pci,id=eth1,netdev=link,mac={_mac(name, 1)},romfile="]
        argv += ["-virtfs", f"local,path={self.exchange},mount_tag=exchange,security_model=none,"
                            "multidevs=remap"]
        images = [("lab-tree", self.info["image"]), ("lab-stage", self.dir / "stage.img")]
        if self.kernel.get("image"):
            images.append(("lab-kernel", self.kernel["image"]))
        for serial, image in images:
            argv += ["-drive", f"if=none,id={serial},file={image},format=raw,readonly=on,"
                               "file.locking=off",
                     "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
        disks = (("pv", _PV_BYTES), ("beat", _MIB)) + tuple(self.options.scratch)
        if self.options.durable:
            tree.make_empty_image(directory / "upper.img", _UPPER_BYTES)
            disks += (("upper", _UPPER_BYTES),)
        for serial, size in disks:
            image = directory / f"{serial}.img"
            with open(image, "ab") as file:
                file.truncate(size)
            argv += ["-drive", f"if=none,id={serial},file={image},format=raw,cache=unsafe,"
                               "discard=unmap",
                     "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
        return argv

    def _tick(self) -> str:
        """QEMU's emulation of VMRUN changes a vCPU's pending interrupts without a lock (helper_vmrun sets the virtual
        interrupt's bit while the APIC's thread sets others), so now and then one is lost. A lost one-shot timer stops a
        CPU for good, and the guest on it; after a lost periodic one the next comes by itself. The debug kernels run no
        guests, and in them a tick that never rests is most of what a host does."""
        return "" if self.options.kernel in kernels.DEBUG else "nohz=off highres=off "

    def _cpus(self) -> int:
        """Emulated processors wait for each other's locks: more of them than real ones cost time. And with one per
        host no interrupt between processors can get lost (see "nohz=off")."""
        return self.options.cpus or (2 if self.options.hosts == 1 else 1)

    def _set_link(self, up: bool) -> None:
        for host in self.hosts.values():
            if host.alive():
                host.qmp("set_link", name="link", up=up)

    def _wait_for_link_socket(self, host: Host) -> None:
        """QEMU connects its end of the cable once, and for ever stays without it when the other
        end does not listen yet."""
        path, listening = str(self.dir / "link.sock"), 0x10000
        deadline = time.monotonic() + 60
        while host.name == "a":
            for line in pathlib.Path("/proc/net/unix").read_text().splitlines():
                fields = line.split()
                if fields[-1] == path and int(fields[3], 16) & listening:
                    return
            if not host.alive() or time.monotonic() > deadline:
                raise LabError("host a does not open its end of the link: "
                               + (host.dir / "qemu.log").read_text(errors="replace"))
            time.sleep(0.02)

    def _build_vector_probe(self, stage: pathlib.Path) -> None:
        target = stage / "usr/lib/ferry-lab/vectorprobe"
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-static", "-o", target,
                        LAB_DIR / "vectorprobe.c"], check=True)

    def _capabilities_dir(self) -> pathlib.Path:
        recipe = hashlib.sha256(f"{tree.recipe_hash()} {_EMULATED_CPU}".encode()).hexdigest()[:12]
        return cache_dir() / f"capabilities-{recipe}-{self.kver}-{self.accel}"

    def _capabilities(self) -> dict[str, bytes]:
        where = self._capabilities_dir()
        return {file.name: file.read_bytes() for file in where.glob("*.xml")}

    def _share_capabilities(self) -> None:
        """libvirt asks QEMU what it can do before it starts the first guest, which takes many
        seconds under emulation. The answer is the same at each boot, so it is kept."""
        target = self._capabilities_dir()
        # The debug kernels run no guests.
        if target.exists() or self.hosts["a"].run("test -e /dev/kvm", check=False).rc != 0:
            return
        self.log("lab: first boot of this kernel: libvirt questions QEMU, once")
        first = self.hosts["a"]
        first.run("virsh domcapabilities --virttype kvm", timeout=900)
        where = "/var/cache/libvirt/qemu/capabilities"
        work = target.with_name(f"{target.name}.tmp-{os.getpid()}")
        work.mkdir()
        for name in first.run(f"ls {where}").out.split():
            (work / name).write_bytes(first.get(f"{where}/{name}"))
            for other in list(self.hosts.values())[1:]:
                other.put(f"{where}/{name}", work / name, 0o600)
        try:
            work.rename(target)
        except OSError:
            shutil.rmtree(work)


def _copy_stage(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the install tree. Top directories that are links in Debian go to where they point."""
    target.mkdir()
    if not source.is_dir():
        return
    for item in source.iterdir():
        merged = item.name in ("bin", "sbin", "lib", "lib64")
        where = target / "usr" / item.name if merged else target / item.name
        if item.is_dir():
            shutil.copytree(item, where, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(item, where)


def _sweep(base: pathlib.Path) -> None:
    """Removes what labs left that were killed before they could tidy up."""
    for owner in base.glob("*/owner"):
        if not _is_alive(int(owner.read_text() or 0)):
            shutil.rmtree(owner.parent, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return pid > 0
    except ProcessLookupError:
        return False


def _mac(host: str, card: int) -> str:
    return f"52:54:00:77:{card:02x}:{1 + list(HOSTS).index(host):02x}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def exit_on_signals() -> None:
    """SIGTERM and SIGHUP end the program like Ctrl-C does: with the tidying up."""
    def leave(number, _frame):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
