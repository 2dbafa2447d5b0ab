# SPDX-License-Identifier: GPL-2.0-or-later
"""One host: its QEMU process, and control of it by ssh. All state that matters is in files of
the run directory, so a second process can attach to a lab that another one keeps up."""

import ctypes
import dataclasses
import json
import os
import pathlib
import re
import resource
import shlex
import signal
import subprocess
import time

from . import qmp
from .paths import LabError

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1

# What the kernel must never say during a scenario.
_KERNEL_TROUBLE = re.compile(
    r"BUG:|WARNING:|Oops|general protection fault|Kernel panic|INFO: task .* blocked|KASAN|UBSAN"
    r"|possible circular locking|suspicious RCU|inconsistent lock state|refcount_t:|list_(add|del) "
    r"corruption|soft lockup|rcu.*detected stalls|Call Trace:")


def _of_others(lines: list[str], number: int) -> bool:
    """Is this the title of a data race (KCSAN) in code that is not the filter's? Debian's 6.1 has many."""
    if "BUG: KCSAN" not in lines[number]:
        return False
    for line in lines[number:]:
        if "[dm_ferry" in line:
            return False
        if "=" * 20 in line:
            break
    return True


def die_with_parent() -> None:
    """For preexec_fn: the child gets its own process group and dies when the lab dies."""
    os.setpgid(0, 0)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclasses.dataclass
class Run:
    """What came of a command on a host."""
    command: str
    rc: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"`{self.command}` ended with {self.rc}\n{self.out}{self.err}"


class CommandFailed(LabError):
    def __init__(self, host: str, run: Run) -> None:
        super().__init__(f"on host {host}: {run}")
        self.run = run


class Background:
    """A command that runs on a host while the scenario goes on."""

    def __init__(self, host: "Host", command: str, output: pathlib.Path) -> None:
        self.command, self.output, self._host = command, output, host
        self._mark = f"/run/lab-{output.stem}.pid"
        wrapped = f"echo $$ >{self._mark}; exec bash -c {shlex.quote(command)}"
        with open(output, "wb") as sink:
            self._process = subprocess.Popen(host.ssh_argv() + [wrapped], stdin=subprocess.DEVNULL,
                                             stdout=sink, stderr=subprocess.STDOUT,
                                             preexec_fn=die_with_parent)

    @property
    def out(self) -> str:
        return self.output.read_text(errors="replace")

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float = 120, check: bool = True) -> Run:
        try:
            rc = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"`{self.command}` on host {self._host.name} still runs after "
                           f"{timeout} s; its output so far:\n{self.out}") from None
        run = Run(self.command, rc, self.out, "")
        if check and rc != 0:
            raise CommandFailed(self._host.name, run)
        return run

    def signal(self, name: str = "TERM") -> None:
        """Sends a signal to the command and everything it started."""
        if self._process.poll() is None:
            self._host.run(f"kill -{name} -- -$(cat {self._mark})", check=False)

    def stop(self) -> None:
        self.signal("KILL")
        self._process.kill()
        self._process.wait()


class Host:
    def __init__(self, name: str, directory: pathlib.Path, config: dict) -> None:
        """`config`: address, port, key, known_hosts, argv, time_limit_s (see Lab)."""
        self.name, self.dir, self.config = name, directory, config
        self.address = config["address"]
        self.console = directory / "console.log"
        self._qemu: subprocess.Popen | None = None
        self._master: subprocess.Popen | None = None
        self._spawned = 0
        self._console_from = 0      # where the console of this boot begins
        self.powered = True
        self._control = directory / "ssh.sock"

    # --- the machine ---

    def start(self) -> None:
        """Powers the host on. Does not wait; see wait_ready."""
        for stale in ("qmp.sock", "shell.sock"):
            (self.dir / stale).unlink(missing_ok=True)
        limit_s = self.config["time_limit_s"]
        self._console_from = self.console.stat().st_size if self.console.exists() else 0
        self.powered = True

        def limits() -> None:
            die_with_parent()
            # Should the lab hang, a QEMU that burns its processors ends on its own.
            resource.setrlimit(resource.RLIMIT_CPU, (4 * limit_s, 4 * limit_s))

        with open(self.dir / "qemu.log", "ab") as log:
            self._qemu = subprocess.Popen(self.config["argv"], stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, preexec_fn=limits)
        (self.dir / "pid").write_text(str(self._qemu.pid))

    def alive(self) -> bool:
        if self._qemu is not None:
            return self._qemu.poll() is None
        try:
            os.kill(int((self.dir / "pid").read_text()), 0)
            return True
        except (OSError, ValueError):
            return False

    def wait_ready(self, timeout: float = 600) -> float:
        """Waits until ssh, libvirtd and the volume group are there. Returns the host's uptime."""
        deadline = time.monotonic() + timeout
        while True:
            text = self.console.read_bytes()[self._console_from:].decode(errors="replace") \
                if self.console.exists() else ""
            ready = re.search(r"ferry-lab: ready after ([0-9.]+) s", text)
            if ready:
                self._open_master()
                self._start_vector_probe()
                return float(ready.group(1))
            if not self.alive():
                raise LabError(f"host {self.name} ended while booting; console:\n{_tail(text)}\n"
                               + _tail((self.dir / "qemu.log").read_text(errors="replace")))
            if time.monotonic() > deadline:
                raise LabError(f"host {self.name} is not ready after {timeout} s; "
                               f"console:\n{_tail(text)}")
            time.sleep(0.1)

    def power_off(self) -> None:
        """Cuts the power: what the host has given to its disks is on them, what was in its memory is lost. Its end of
        the cable stays where it is: the other host sees no carrier go, only nobody answers any more."""
        self.qmp("stop")
        self._close_master()
        self.powered = False

    def power_on(self) -> float:
        """Boots it again from the same disks and waits until it is ready. Returns the host's uptime."""
        self._console_from = self.console.stat().st_size
        # Otherwise a reset ends QEMU (-no-reboot), so that no crash passes for a new boot. The firmware does a second
        # one by itself when it finds its old self in memory.
        self.qmp("set-action", reboot="reset")
        self.qmp("system_reset")
        # The reset is carried out a little later; a processor must not go on where it was.
        deadline = time.monotonic() + 60
        while self.qmp("query-status")["status"] != "prelaunch":
            if time.monotonic() > deadline:
                raise LabError(f"host {self.name} was not reset: {self.qmp('query-status')}")
            time.sleep(0.02)
        self.qmp("cont")
        self.powered = True
        uptime = self.wait_ready()
        self.qmp("set-action", reboot="shutdown")
        return uptime

    def reboot(self) -> float:
        """Shuts the host down in good order and boots it again. Returns its uptime."""
        self._console_from = self.console.stat().st_size
        self.qmp("set-action", reboot="reset")
        self.run("systemctl --no-block reboot", check=False)
        self._close_master()
        uptime = self.wait_ready()
        self.qmp("set-action", reboot="shutdown")
        return uptime

    def kill(self) -> None:
        """Ends the machine at once and for good; its neighbour sees the carrier go. See power_off."""
        self._close_master()
        try:
            group = int((self.dir / "pid").read_text())
            os.killpg(group, signal.SIGKILL)
        except (OSError, ValueError):
            pass
        if self._qemu is not None:
            self._qemu.wait()

    def qmp(self, command: str, **arguments):
        return qmp.execute(self.dir / "qmp.sock", command, **arguments)

    # --- commands ---

    def ssh_argv(self) -> list[str]:
        options = {"ControlPath": self._control, "IdentityFile": self.config["key"],
                   "UserKnownHostsFile": self.config["known_hosts"], "IdentitiesOnly": "yes",
                   "HostKeyAlias": self.name, "StrictHostKeyChecking": "yes", "LogLevel": "ERROR",
                   "ServerAliveInterval": "20", "ServerAliveCountMax": "6", "ConnectTimeout": "60",
                   "BatchMode": "yes"}
        argv = ["ssh", "-F", "none", "-p", str(self.config["port"])]
        for name, value in options.items():
            argv += ["-o", f"{name}={value}"]
        return argv + ["root@127.0.0.1"]

    def run(self, command: str, check: bool = True, timeout: float = 120,
            input: str | None = None) -> Run:
        """Runs a shell command as root. `check`: a status other than 0 is an error."""
        limited = f"exec timeout -k 5 {timeout:g} bash -c {shlex.quote(command)}"
        try:
            done = subprocess.run(self.ssh_argv() + [limited], capture_output=True,
                                  timeout=timeout + 30, input=(input or "").encode())
        except subprocess.TimeoutExpired:
            raise LabError(f"host {self.name} does not answer any more (command: `{command}`)") \
                from None
        run = Run(command, done.returncode, done.stdout.decode(errors="replace"),
                  done.stderr.decode(errors="replace"))
        if run.rc in (124, 137) and check:
            run.err += f"(stopped after {timeout:g} s)\n"
        if check and run.rc != 0:
            raise CommandFailed(self.name, run)
        return run

    def spawn(self, command: str) -> Background:
        """Starts a shell command as root and lets it run."""
        self._spawned += 1
        output = self.dir / f"spawn-{os.getpid()}-{self._spawned}.out"
        return Background(self, command, output)

    def wait_for(self, condition, timeout: float = 60, what: str = "", interval: float = 0.2):
        """Polls until `condition` holds: a shell command that ends with 0, or a callable that
        returns something true (returned then)."""
        deadline = time.monotonic() + timeout
        while True:
            last = condition() if callable(condition) else self._try_often(condition, interval)
            if last.rc == 0 if isinstance(last, Run) else last:
                return last
            if time.monotonic() > deadline:
                raise LabError(f"waited {timeout:g} s on host {self.name} for "
                               f"{what or condition}; last answer: {last}")
            time.sleep(interval)

    def _try_often(self, command: str, interval: float) -> Run:
        """Tries a command on the host for some 5 s: a new ssh session for each try would cost it much more time. What
        it printed the last time is the answer."""
        tries = (f"for n in $(seq {max(1, int(5 / interval))}); do out=$( ({command}) ) && rc=0 || rc=$?; "
                 f"[ $rc = 0 ] && break; sleep {interval:g}; done; printf '%s\\n' \"$out\"; exit $rc")
        return dataclasses.replace(self.run(tries, check=False), command=command)

    def kill9(self, unit: str) -> None:
        """Ends a service as a crash does. systemd starts it again if its unit says so."""
        pid = self.run(f"systemctl show -P MainPID {unit}").out.strip()
        if pid == "0":
            raise LabError(f"{unit} does not run on host {self.name}: there is nothing to kill")
        self.run(f"kill -9 {pid}")
        self.wait_for(f"! test -e /proc/{pid}", 60, f"process {pid} of {unit} to be gone")

    def wait_for_job(self, condition, what: str, timeout: float = 120) -> dict:
        """Waits until ferryd's newest job is as `condition`, a function of the job (docs/api.md), wants it."""
        def newest():
            answer = self.run("migrate-ctl jobs --json", check=False)
            jobs = json.loads(answer.out)["jobs"] if answer.rc == 0 else []
            return jobs[-1] if jobs and condition(jobs[-1]) else None
        return self.wait_for(newest, timeout, what)

    def put(self, path: str, content: str | bytes | pathlib.Path, mode: int = 0o644) -> None:
        """Writes a file on the host, safe from a loss of power. `content`: text, bytes, or the path of a file out
        here."""
        if isinstance(content, pathlib.Path):
            content = content.read_bytes()
        if isinstance(content, str):
            content = content.encode()
        quoted = shlex.quote(path)
        command = (f"mkdir -p $(dirname {quoted}) && cat >{quoted}.new && chmod {mode:o} "
                   f"{quoted}.new && mv {quoted}.new {quoted} && sync {quoted}")
        done = subprocess.run(self.ssh_argv() + [command], input=content, capture_output=True,
                              timeout=300)
        if done.returncode != 0:
            raise CommandFailed(self.name, Run(command, done.returncode, "",
                                               done.stderr.decode(errors="replace")))

    def get(self, path: str) -> bytes:
        done = subprocess.run(self.ssh_argv() + [f"cat {shlex.quote(path)}"], capture_output=True,
                              timeout=300)
        if done.returncode != 0:
            raise CommandFailed(self.name, Run(f"cat {path}", done.returncode, "",
                                               done.stderr.decode(errors="replace")))
        return done.stdout

    # --- looking back ---

    def dmesg_check(self) -> None:
        """Fails when the kernel complained since the boot."""
        lines = self.run("dmesg").out.splitlines()
        for number, line in enumerate(lines):
            if _KERNEL_TROUBLE.search(line) and not _of_others(lines, number):
                extract = "\n".join(lines[max(0, number - 3):number + 40])
                raise LabError(f"the kernel of host {self.name} complains:\n{extract}")

    def collect_logs(self, directory: pathlib.Path) -> None:
        """Copies consoles always, and journals when the host still answers."""
        directory.mkdir(parents=True, exist_ok=True)
        for pattern in ("console.log", "qemu.log", "spawn-*.out"):
            for source in self.dir.glob(pattern):
                (directory / source.name).write_bytes(source.read_bytes())
        self._collect_processor_state(directory / "processors.log")
        if not self.alive() or not self._control.exists():
            return
        wanted = {
            "journal.log": "journalctl -b --no-pager -o short-precise",
            "dmesg.log": "dmesg",
            "ferryd.log": "journalctl -b --no-pager -o short-precise -u ferryd; "
                          "tail -n +1 /var/log/ferry/* 2>/dev/null || true",
            "libvirt.log": "tail -n +1 /var/log/libvirt/qemu/*.log 2>/dev/null || true",
            "guests.log": "tail -n 200 /var/log/ferry-guest-*.log 2>/dev/null || true",
            "state.log": "uptime; ps axf -o pid,stat,wchan:20,args; dmsetup table; dmsetup info -c; "
                         "virsh -r list --all; lsblk; ss -tnp; free -m; systemctl --failed",
        }
        for name, command in wanted.items():
            try:
                run = self.run(command, check=False, timeout=30)
                (directory / name).write_text(run.out + run.err)
            except LabError as error:
                (directory / name).write_text(f"{error}\n")
                return

    def _collect_processor_state(self, target: pathlib.Path) -> None:
        """What QEMU sees of a host that may have hung."""
        try:
            answers = [self.qmp("human-monitor-command", **{"command-line": line})
                       for line in ("info status", "info registers -a", "info lapic 0", "info lapic 1", "info pic")]
            target.write_text("\n".join(answers))
        except (LabError, OSError, ValueError) as error:
            target.write_text(f"{error}\n")

    def _start_vector_probe(self) -> None:
        # Once when the host is up, and once more when it runs a guest of its own.
        self.run("(p=/usr/lib/ferry-lab/vectorprobe; nice $p 1; "
                 "while [ ! -e /run/lab-vector.stop ]; do "
                 "if pidof -q qemu-system-x86_64; then nice $p 2; break; fi; sleep 1; done; "
                 "echo end) >/run/lab-vector.out 2>&1 </dev/null &")

    # --- ssh master ---

    def _open_master(self) -> None:
        self._control.unlink(missing_ok=True)
        argv = self.ssh_argv()
        argv[1:1] = ["-M", "-N"]
        with open(self.dir / "ssh.log", "ab") as log:
            self._master = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=die_with_parent)
        deadline = time.monotonic() + 60
        while not self._control.exists():
            if self._master.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"no ssh connection to host {self.name}: "
                               + (self.dir / "ssh.log").read_text(errors="replace"))
            time.sleep(0.02)

    def _close_master(self) -> None:
        if self._master is not None:
            self._master.kill()
            self._master.wait()
            self._master = None
        self._control.unlink(missing_ok=True)


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join("  | " + line for line in text.splitlines()[-lines:])
