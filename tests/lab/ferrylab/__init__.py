# SPDX-License-Identifier: GPL-2.0-or-later
"""The two-host test lab of Ferry. README.md beside this package tells how to use it."""

from .host import CommandFailed, Host, Run
from .lab import Lab, Options
from .paths import LabError
from .runner import Skip

__all__ = ["CommandFailed", "Host", "Lab", "LabError", "Options", "Run", "Skip"]
