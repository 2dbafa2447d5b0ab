# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that the block filter keeps its promises in a real kernel: the kernel suite passes, the
module unloads cleanly, and a build of it that marks writes too early loses blocks in the same race test."""

import re

from ferrylab.paths import REPO

HOSTS = 1
MEMORY = "1G"
SCRATCH = (("kmod", 320 << 20),)
TIMEOUT = 1800

SUITE = REPO / "build" / "tests" / "kmod" / "ferry-kmod-suite"
RACE = "RaceTest.NoWriteIsLostWhileRoundsAreCopied"


def run(lab):
    host = lab.a
    host.put("/root/suite", SUITE, mode=0o755)
    host.run("systemctl stop ferryd", check=False)
    host.run("grep -q ^dm_ferry /proc/modules || insmod /lib/modules/$(uname -r)/updates/dm-ferry.ko")

    lab.log("the suite against the module")
    result = suite(host, "*", timeout=1200)
    for line in result.out.splitlines():
        if re.match(r"\[  (FAILED|SKIPPED|PASSED) |.*(Failure|Actual:|lost \d+ blocks)", line):
            lab.log(line)
    assert result.rc == 0, f"the kernel suite failed:\n{result.out[-6000:]}{result.err[-2000:]}"
    assert lost_blocks(result.out) == 0, "the race test did not tell how many blocks were lost"

    lab.log("unloading")
    host.run("rmmod dm_ferry && ! test -e /dev/ferry")
    host.dmesg_check()

    lab.log("the race test against the module that marks at submission")
    host.run("insmod /usr/lib/ferry-lab/mark-at-submit/$(uname -r)/dm-ferry.ko")
    result = suite(host, RACE, timeout=300)
    lost = lost_blocks(result.out)
    assert result.rc != 0 and lost, \
        f"the race test cannot see a lost write: it must fail here, and did not\n{result.out}"
    lab.log(f"as it must: lost {lost} blocks")
    host.run("rmmod dm_ferry")


def suite(host, which, timeout):
    return host.run("FERRY_TEST_DEVICE=/dev/disk/by-id/virtio-kmod "
                    f"/root/suite --gtest_color=no --gtest_filter='{which}'",
                    check=False, timeout=timeout)


def lost_blocks(text):
    """The number of the race test's report, or None when there is none."""
    match = re.search(r"^lost (\d+) blocks of", text, re.MULTILINE)
    return int(match.group(1)) if match else None
