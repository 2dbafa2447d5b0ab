# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that the block filter keeps its promises in a real kernel: the kernel suite passes, the
module unloads cleanly, and a build of it that marks writes too early loses blocks in the same tests."""

import _kmod

HOSTS = 1
MEMORY = _kmod.MEMORY
SCRATCH = _kmod.SCRATCH
# Only a host that hangs gets there: the suite has limits of its own.
TIMEOUT = 8 * 3600

RACE = "RaceTest.NoWriteIsLostWhileRoundsAreCopied"
ORACLE = "OracleTest.TheCopyEqualsTheDisk"


def run(lab):
    host = lab.a
    _kmod.prepare(lab)
    slowness = _kmod.SLOWNESS.get(lab.options.kernel, 1)

    lab.log("the suite against the module")
    rc, text = _kmod.suite(lab, "*-PlantedTest.*", timeout=2400 * slowness * (3 if _kmod.LONG else 1))
    _kmod.tell(lab, text)
    assert rc == 0, f"the kernel suite failed:\n{text[-6000:]}"
    assert _kmod.lost_blocks(text, "") == 0, "the race test did not tell how many blocks were lost"
    assert _kmod.lost_blocks(text, "oracle: .*; ") == 0, "the oracle did not tell how many blocks were lost"

    lab.log("unloading")
    host.run("rmmod dm_ferry && ! test -e /dev/ferry")
    host.dmesg_check()

    lab.log("the race test and the oracle against the module that marks at submission")
    host.run("insmod /usr/lib/ferry-lab/mark-at-submit/$(uname -r)/dm-ferry.ko")
    # The oracle takes fewer steps on a slow kernel, so it has as many seeds as its steps are fewer.
    control(lab, RACE, "", 600 * slowness, [None])
    control(lab, ORACLE, "oracle: .*; ", 600 * slowness, range(1, slowness + 1))
    host.run("rmmod dm_ferry")


def control(lab, test, report, timeout, seeds):
    """The test must see lost writes, with one of the seeds."""
    for seed in seeds:
        rc, text = _kmod.suite(lab, test, timeout, name="control", seed=seed)
        lost = _kmod.lost_blocks(text, report)
        if lost:
            break
    assert rc != 0 and lost, f"{test} cannot see a lost write: it must fail here, and did not\n{text}"
    lab.log(f"as it must: {test} lost {lost} blocks")
