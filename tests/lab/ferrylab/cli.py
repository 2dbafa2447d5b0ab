# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs of tests/lab/lab."""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from . import accel, kernels, runner, tree
from .lab import Lab, Options, exit_on_signals
from .paths import LOGS, LabError, run_base


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    args = _arguments()
    try:
        return args.verb(args)
    except LabError as error:
        say(f"lab: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lab", description="Ferry's two-host test lab.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function, help_text: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=help_text, description=help_text)
        one.set_defaults(verb=function)
        return one

    def boot_options(one: argparse.ArgumentParser) -> None:
        one.add_argument("--kernel", choices=kernels.names(), default="6.1")
        one.add_argument("--memory", default="2G", help="memory of each host (default 2G)")
        one.add_argument("--hosts", type=int, choices=(1, 2), help="1 boots host a only")
        one.add_argument("--scratch", action="append", default=[], metavar="SERIAL:MIB",
                         help="an extra disk for every host, /dev/disk/by-id/virtio-SERIAL")
        one.add_argument("--private", action="store_true",
                         help="do not wait for other labs on this machine")

    one = verb("tree", _tree, "make the hosts' Debian tree and the kernel headers, if missing")
    one.add_argument("--print", action="store_true", dest="show", help="print the paths as JSON")
    one.add_argument("--refresh", action="store_true", help="make them anew")
    one = verb("kernel", _kernel, "make a kernel, if missing, and print its paths as JSON")
    one.add_argument("name", choices=kernels.names())
    verb("checkers", _checkers, "fetch the kernel's style and rule checkers, if missing, and print where they are")
    one = verb("up", _up, "start both hosts and leave them running")
    boot_options(one)
    one.add_argument("--hours", type=float, default=4, help="they end on their own after this")
    verb("down", _down, "end the hosts that `up` started")
    one = verb("run", _run, "boot, run scenarios, tear down; exit status 0, 1, or 77 for skipped")
    one.add_argument("scenario", nargs="*", help="names from tests/scenarios, or Python files")
    boot_options(one)
    one.add_argument("--reuse", action="store_true", help="one boot for all scenarios")
    one.add_argument("--attach", action="store_true", help="use the lab that `up` started")
    one.add_argument("--keep", action="store_true", help="keep the run directory with the disks")
    verb("list", _list, "list the scenarios")
    one = verb("ssh", _ssh, "log in to a host, or run a command there")
    one.add_argument("host", choices=("a", "b"))
    one.add_argument("command", nargs=argparse.REMAINDER)
    verb("restage", _restage, "copy build/stage, as it is now, into the running hosts")
    verb("status", _status, "tell what is running")
    verb("probe", _probe, "tell which accelerator will be used, and why")
    return parser.parse_args()


def _options(args: argparse.Namespace) -> Options:
    scratch = []
    for word in args.scratch:
        serial, _, mib = word.partition(":")
        if not mib.isdigit():
            raise LabError(f"--scratch {word}: wanted SERIAL:MIB")
        scratch.append((serial, int(mib) << 20))
    return Options(kernel=args.kernel, memory=args.memory, hosts=args.hosts or 2,
                   scratch=tuple(scratch), private=args.private, keep=getattr(args, "keep", False))


def _tree(args) -> int:
    info = tree.ensure(args.refresh, say)
    print(json.dumps(info, indent=2) if args.show else info["home"])
    return 0


def _kernel(args) -> int:
    print(json.dumps(kernels.ensure(args.name, say), indent=2))
    return 0


def _checkers(_args) -> int:
    print(kernels.checkers(say))
    return 0


def _run(args) -> int:
    exit_on_signals()
    scenarios = [runner.find(word) for word in args.scenario or runner.names()]
    if args.attach:
        outcomes = runner.run_attached(scenarios, say)
    else:
        options = _options(args)
        options.hosts = args.hosts or 1     # grows to what the scenarios ask for
        outcomes = runner.run(scenarios, options, args.reuse, say)
    return runner.summary(outcomes)


def _list(_args) -> int:
    for name in runner.names():
        print(f"{name:24} {runner.find(name).shows}")
    return 0


def _up(args) -> int:
    """The keeper is a daemon: it owns the hosts, they die with it."""
    options = _options(args)
    options.time_limit_s, options.kept_up = int(args.hours * 3600), True
    tree.ensure(log=say)
    run_base().mkdir(mode=0o700, parents=True, exist_ok=True)
    log_path = run_base() / "up.log"
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.setsid()
        if os.fork() == 0:
            _keep_up(options, log_path, writer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as news:
        for line in news:
            if line == "up\n":
                print(_how_to_log_in(Lab.attach()))
                return 0
            say(line.rstrip())
    say(f"lab: did not come up; see {log_path} and {LOGS / 'up'}")
    return 1


def _keep_up(options: Options, log_path: pathlib.Path, writer: int) -> None:
    exit_on_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(os.devnull) as nothing, open(log_path, "w") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    status, news = 1, os.fdopen(writer, "w", buffering=1)
    # The hosts are children and inherit what is open; only this process may hold the pipe.
    os.set_inheritable(writer, False)

    def tell(text: str) -> None:
        say(text)
        if not news.closed:
            news.write(text + "\n")

    lab = Lab(options, tell)
    try:
        lab.start()
        news.write("up\n")
        news.close()
        deadline = time.monotonic() + options.time_limit_s
        while time.monotonic() < deadline and any(h.alive() for h in lab.hosts.values()):
            time.sleep(0.5)
        status = 0
    except LabError as error:
        tell(f"lab: {error}")
        lab.collect_logs(LOGS / "up")
    except SystemExit:
        status = 0
    finally:
        lab.stop()
        os._exit(status)


def _how_to_log_in(lab: Lab) -> str:
    lines = ["", f"Ferry lab is up: {', '.join(lab.hosts)}; Linux {lab.kver}, {lab.accel}.",
             "  log in           tests/lab/lab ssh a        (or b; add a command to run it)",
             "  run a scenario   tests/lab/lab run --attach smoke",
             "  new binaries in  tests/lab/lab restage",
             "  end it           tests/lab/lab down"]
    for name, host in lab.hosts.items():
        lines.append(f"  host {name}: {host.address} on the link; console {host.console}")
    lines.append(f"  shared directory {lab.exchange} = /exchange in the hosts")
    return "\n".join(lines)


def _down(_args) -> int:
    try:
        lab = Lab.attach()
    except LabError:
        print("no lab is up")
        return 0
    owner = int((lab.dir / "owner").read_text())
    os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while lab.dir.exists():
        if time.monotonic() > deadline:
            raise LabError(f"process {owner} does not end; its directory is {lab.dir}")
        time.sleep(0.1)
    print("the lab is down")
    return 0


def _ssh(args) -> int:
    host = Lab.attach(only_kept=False).hosts.get(args.host)
    if host is None:
        raise LabError(f"this lab has no host {args.host}")
    argv = host.ssh_argv()
    if not args.command:
        argv.insert(1, "-t")
    return subprocess.run(argv + [" ".join(args.command)] if args.command else argv).returncode


def _restage(_args) -> int:
    Lab.attach(say).restage()
    return 0


def _status(_args) -> int:
    try:
        lab = Lab.attach(only_kept=False)
    except LabError as error:
        print(error)
        return 1
    print(_how_to_log_in(lab))
    for name, host in lab.hosts.items():
        print(f"  host {name}: {'running' if host.alive() else 'gone'}, "
              f"ssh on 127.0.0.1:{host.config['port']}")
    return 0


def _probe(_args) -> int:
    kind, why = accel.choose()
    print(f"{kind}: {why}")
    return 0
