# SPDX-License-Identifier: GPL-2.0-or-later
"""What scenarios of the kernel suite share: how it gets onto a host and runs there."""

import os
import re
import subprocess

from ferrylab.paths import REPO

SUITE = REPO / "build" / "tests" / "kmod" / "ferry-kmod-suite"
RESULTS = REPO / "build" / "results"
# What a host needs for it.
MEMORY = "1G"
SCRATCH = (("kmod", 320 << 20),)
LONG = os.environ.get("FERRY_LONG") == "1"
# $FERRY_SLOWNESS of the suite (tests/kmod/suite.h): these kernels check each access to memory.
SLOWNESS = {"kasan": 4, "kcsan": 4}


def prepare(lab):
    host = lab.a
    # Without symbols: they are most of it, and a debug kernel takes its time to receive them.
    subprocess.run(["strip", "-o", lab.exchange / "suite", SUITE], check=True)
    host.run("install -m 755 /exchange/suite /root/suite")
    host.run("systemctl stop ferryd", check=False)
    host.run("grep -q ^dm_ferry /proc/modules || insmod /lib/modules/$(uname -r)/updates/dm-ferry.ko")


def suite(lab, which, timeout, name="suite", seed=None):
    """Runs the tests that GoogleTest's filter `which` names. What they print grows in the exchange directory, so that
    one can look on, and stays in build/results; returns (exit status, what they printed). `seed`: of what is random."""
    known = {"FERRY_TEST_DEVICE": "/dev/disk/by-id/virtio-kmod", "FERRY_SLOWNESS": SLOWNESS.get(lab.options.kernel, 1)}
    known |= {word: os.environ[word] for word in ("FERRY_LONG", "FERRY_SEED") if word in os.environ}
    known |= {"FERRY_SEED": seed} if seed else {}
    words = " ".join(f"{word}={value}" for word, value in known.items())
    result = lab.a.run(f"{words} /root/suite --gtest_color=no --gtest_filter='{which}' >/exchange/{name}.log 2>&1",
                       check=False, timeout=timeout)
    text = (lab.exchange / f"{name}.log").read_text(errors="replace")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"kmod-{name}-{lab.options.kernel}.log").write_text(text)
    if result.rc == 124:
        text += f"(stopped after {timeout} s)\n"
    return result.rc, text


def tell(lab, text):
    """The lines of the tests' output that a reader wants."""
    for line in text.splitlines():
        if re.match(r"\[  (FAILED|SKIPPED|PASSED) |.*(Failure|Actual:|lost \d+ blocks)"
                    r"|(allocations|insertion|oracle|scale|ioctl fuzz|netlink fuzz): ", line):
            lab.log(line)


def passed(text):
    """Names of the tests that passed."""
    return set(re.findall(r"^\[       OK \] (\S+)", text, re.MULTILINE))


def lost_blocks(text, test):
    """The number that the race test ("") or the oracle ("oracle: …; ") reports, or None when there is none."""
    match = re.search(rf"^{test}lost (\d+) blocks", text, re.MULTILINE)
    return int(match.group(1)) if match else None
