# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that the detectors of the debug kernels are awake: each reports a bug that a module commits for
it, and both the kernel suite's and the lab's look into the kernel's log fail on it."""

from ferrylab.paths import LabError

import _kmod

HOSTS = 1
MEMORY = _kmod.MEMORY
SCRATCH = _kmod.SCRATCH
KERNELS = ("kasan", "kcsan")
TIMEOUT = 2400

DETECTORS = {
    "kasan": {"DebugAtomicSleep", "ProveRcu", "Ubsan", "Kmemleak", "Lockdep", "Kasan", "FailNth"},
    "kcsan": {"Kcsan"},
}


def run(lab):
    host = lab.a
    _kmod.prepare(lab)
    host.dmesg_check()
    host.run("insmod /usr/lib/ferry-lab/planted/$(uname -r)/dm-ferry-planted.ko")
    rc, text = _kmod.suite(lab, "PlantedTest.*", timeout=1500, name="planted")
    assert rc == 0, f"a detector did not report its bug:\n{text[-6000:]}"
    asleep = {f"PlantedTest.{name}" for name in DETECTORS[lab.options.kernel]} - _kmod.passed(text)
    assert not asleep, f"not shown: {', '.join(sorted(asleep))}\n{text}"
    try:
        host.dmesg_check()
    except LabError as complaint:
        lab.log(f"as it must, the lab complains: {str(complaint).splitlines()[0]}")
    else:
        raise AssertionError("the lab's look into the kernel's log saw none of the bugs")
    # They were wanted; the check at the end of each scenario is for what was not.
    host.run("dmesg --clear")
