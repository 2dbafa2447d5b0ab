# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the lab keeps its things. Everything can be moved by the environment."""

import os
import pathlib

REPO = pathlib.Path(__file__).resolve().parents[3]
LAB_DIR = REPO / "tests" / "lab"
SCENARIOS = REPO / "tests" / "scenarios"
LOGS = REPO / "build" / "lab-logs"


def cache_dir() -> pathlib.Path:
    """Things that are dear to make and survive: host trees, headers."""
    return pathlib.Path(os.environ.get("FERRY_CACHE") or os.path.expanduser("~/.cache/ferry"))


def run_base() -> pathlib.Path:
    """Parent of the run directories: lock, disks, sockets, consoles. Gone with the lab."""
    return pathlib.Path(os.environ.get("FERRY_LAB_DIR") or f"/tmp/ferry-lab-{os.getuid()}")


def stage_dir() -> pathlib.Path:
    """The install tree of the project that the hosts boot with."""
    return pathlib.Path(os.environ.get("FERRY_STAGE") or REPO / "build" / "stage")


class LabError(RuntimeError):
    """Something in the lab itself went wrong; the message says what to look at."""
