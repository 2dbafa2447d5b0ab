# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds scenarios, runs them, keeps the logs of those that fail."""

import dataclasses
import importlib.util
import pathlib
import shutil
import signal
import sys
import time
import traceback

from .lab import Lab, Options
from .paths import LOGS, SCENARIOS, LabError


class Skip(Exception):
    """Raised by a scenario that cannot say anything here; the message says why."""


class OutOfTime(LabError):
    """A scenario took longer than its TIMEOUT."""


@dataclasses.dataclass
class Scenario:
    name: str
    shows: str
    run: object
    hosts: int
    memory: str | None
    scratch: tuple
    timeout_s: int
    kernels: tuple[str, ...] | None
    durable: bool


@dataclasses.dataclass
class Outcome:
    name: str
    verdict: str                  # pass | fail | skip
    seconds: float
    detail: str = ""


def find(word: str) -> Scenario:
    """`word`: the name of a scenario or the path of a Python file."""
    path = pathlib.Path(word)
    if not path.is_file():
        path = SCENARIOS / (word.removesuffix(".py") + ".py")
    if not path.is_file():
        known = ", ".join(names())
        raise LabError(f"there is no scenario {word}; there are: {known}")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("scenario_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shows = " ".join((module.__doc__ or "").split())
    if not shows.startswith("This scenario shows"):
        raise LabError(f"{path}: the docstring must begin with \"This scenario shows\"")
    return Scenario(path.stem, shows, module.run, getattr(module, "HOSTS", 2),
                    getattr(module, "MEMORY", None), tuple(getattr(module, "SCRATCH", ())),
                    getattr(module, "TIMEOUT", 600), getattr(module, "KERNELS", None),
                    getattr(module, "DURABLE", False))


def names() -> list[str]:
    return sorted(path.stem for path in SCENARIOS.glob("*.py") if not path.stem.startswith("_"))


def run(scenarios: list[Scenario], options: Options, reuse: bool, log) -> list[Outcome]:
    if not reuse:
        return [outcome for one in scenarios for outcome in _boot_and_run([one], options, log)]
    return _boot_and_run(scenarios, options, log)


def run_attached(scenarios: list[Scenario], log) -> list[Outcome]:
    lab = Lab.attach(log)
    return [_run_one(lab, scenario, log) for scenario in scenarios]


def summary(outcomes: list[Outcome]) -> int:
    """Prints one line for each scenario; returns the exit status."""
    print()
    for outcome in outcomes:
        print(f"{outcome.verdict.upper():4}  {outcome.name}  {outcome.seconds:.0f} s"
              + (f"  ({outcome.detail})" if outcome.detail else ""))
    verdicts = {outcome.verdict for outcome in outcomes}
    return 1 if "fail" in verdicts else 77 if verdicts == {"skip"} else 0


def _boot_and_run(scenarios: list[Scenario], options: Options, log) -> list[Outcome]:
    wanted = dataclasses.replace(
        options, hosts=max([options.hosts] + [s.hosts for s in scenarios]),
        memory=next((s.memory for s in scenarios if s.memory), options.memory),
        scratch=tuple(dict(sum((s.scratch for s in scenarios), options.scratch)).items()),
        durable=options.durable or any(s.durable for s in scenarios),
        time_limit_s=300 + sum(s.timeout_s for s in scenarios))
    lab = Lab(wanted, log)
    began = time.monotonic()
    try:
        lab.start()
    except LabError as error:
        kept = _keep_logs(lab, scenarios[0].name)
        lab.stop()
        took = time.monotonic() - began
        log(f"lab: did not start: {error}\nlab: consoles are in {kept}")
        return [Outcome(s.name, "fail", took, f"the lab did not start; see {kept}")
                for s in scenarios]
    except BaseException:
        lab.stop()
        raise
    try:
        outcomes = []
        for scenario in scenarios:
            outcomes.append(_run_one(lab, scenario, log))
            if not all(host.alive() for host in lab.hosts.values()) and \
                    len(outcomes) < len(scenarios):
                log("lab: a host is gone; booting again for the rest")
                lab.stop()
                lab = Lab(wanted, log)
                lab.start()
        return outcomes
    finally:
        lab.stop()


def _run_one(lab: Lab, scenario: Scenario, log) -> Outcome:
    log(f"=== {scenario.name}: {scenario.shows}")
    began = time.monotonic()

    def took() -> float:
        return time.monotonic() - began

    if scenario.kernels and lab.options.kernel not in scenario.kernels:
        return Outcome(scenario.name, "skip", 0, f"not for kernel {lab.options.kernel}")

    def too_long(_number, _frame):
        raise OutOfTime(f"longer than {scenario.timeout_s} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(scenario.timeout_s)
    try:
        scenario.run(lab)
        lab.check_health()
        signal.alarm(0)
        log(f"=== {scenario.name}: pass, {took():.1f} s")
        return Outcome(scenario.name, "pass", took())
    except Skip as skip:
        return Outcome(scenario.name, "skip", took(), str(skip))
    except Exception as error:
        signal.alarm(0)
        log(traceback.format_exc().rstrip())
        seconds = took()
        kept = _keep_logs(lab, scenario.name)
        log(f"=== {scenario.name}: FAIL after {seconds:.1f} s; consoles and journals of both "
            f"hosts are in {kept}")
        return Outcome(scenario.name, "fail", seconds,
                       f"{_first_line(error)}; logs in {kept}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _keep_logs(lab: Lab, name: str) -> pathlib.Path:
    target = LOGS / name
    try:
        lab.collect_logs(target)
        shutil.copytree(lab.exchange, target / "exchange", dirs_exist_ok=True,
                        ignore=lambda _d, files: [f for f in files if not f.endswith(".log")]) \
            if lab.exchange.is_dir() and any(lab.exchange.glob("*.log")) else None
    except (LabError, OSError) as error:
        lab.log(f"lab: some logs could not be fetched: {error}")
    return target


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
