# SPDX-License-Identifier: GPL-2.0-or-later
"""This scenario shows that ten migrations back and forth in a row all go well: each leaves the guest on one host
only, all its records and pages right, equal digests, and a fence on the side it left."""

from _guest import SMALL, Guest, need

TIMEOUT = 2700
TIMES = 10  # repetition is the point here, not load


def run(lab):
    with Guest(lab, **SMALL) as guest, guest.watched() as observer:
        source, destination = "a", "b"
        for n in range(1, TIMES + 1):
            _, job = guest.migrate(source, destination, "--create" if n == 1 else "")
            guest.need_only_on(destination)
            guest.need_fenced(source)
            guest.need_open(destination)
            guest.verify_disk()
            lab.log(f"migration {n} of {TIMES}: {source} -> {destination}, {len(job['rounds'])} rounds, "
                    f"{job['total_ms']} ms")
            source, destination = destination, source
        guest.verify()
    result = observer.result
    need(result["ok"], f"signs of life: {result['faults']}")
    need(len(result["switches"]) == TIMES, f"{len(result['switches'])} switches instead of {TIMES}")
    gaps = sorted(s["downtime_ms"] for s in result["switches"])
    lab.log(f"downtime from outside: smallest {gaps[0]:.0f} ms, median {gaps[len(gaps) // 2]:.0f} ms, "
            f"largest {gaps[-1]:.0f} ms")
