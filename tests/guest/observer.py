#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches the guest's signs of life on the beat disks of all hosts from outside, with one clock.

A guest cannot see its own downtime: its clocks stand still with it. So the outer machine polls the
backing files and notes when each new sequence number appears on which host. From that come the
downtime of every move (last beat on one host to the first on the next) and the proof that one and
the same guest ran on, never twice at a time.
"""

import argparse
import array
import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import beatdisk

POLL_S = 0.001
START_TIMEOUT_S = 20.0


class Track:
    """Beats in the order seen, and what follows from them. Knows no files: tests feed it."""

    def __init__(self, hosts):
        self.hosts = list(hosts)
        self.times = array.array("d")
        self.sequences = array.array("Q")
        self.places = array.array("B")
        self.faults = []
        self.boot_id = None
        self.last_beat = None
        self.slowest_poll_s = 0.0
        self._highest = -1

    def add(self, time_s, host, beat):
        place = self.hosts.index(host)
        if self.boot_id is None:
            self.boot_id = beat["boot_id"]
        if beat["boot_id"] != self.boot_id:
            self._fault(time_s, f"another guest beats on {host}: boot id {beat['boot_id']} after "
                                f"{self.boot_id} (restarted, or not the same guest)")
            self.boot_id = beat["boot_id"]
            self._highest = -1
        sequence = beat["sequence"]
        if sequence <= self._highest:
            before = self.hosts[self.places[-1]]
            self._fault(time_s, f"beat {sequence} on {host} after beat {self._highest} was seen "
                                f"(last on {before}): two copies run, or the guest went back")
        self._highest = max(self._highest, sequence)
        self.times.append(time_s)
        self.sequences.append(sequence)
        self.places.append(place)
        self.last_beat = dict(beat, host=host)

    def _fault(self, time_s, text):
        if len(self.faults) < 20:
            self.faults.append({"time_s": time_s, "text": text})

    def result(self):
        largest = {"gap_ms": 0.0}
        switches = []
        missed = 0
        for i in range(1, len(self.times)):
            gap_ms = (self.times[i] - self.times[i - 1]) * 1000
            step = self.sequences[i] - self.sequences[i - 1]
            moved = self.places[i] != self.places[i - 1]
            missed += max(step - 1, 0)
            if gap_ms > largest["gap_ms"]:
                largest = {"gap_ms": gap_ms, "at_s": self.times[i - 1], "switch": moved}
            if moved:
                switches.append({"from": self.hosts[self.places[i - 1]],
                                 "to": self.hosts[self.places[i]],
                                 "downtime_ms": gap_ms, "last_before_s": self.times[i - 1],
                                 "first_after_s": self.times[i], "missed": max(step - 1, 0)})
        span_s = self.times[-1] - self.times[0] if self.times else 0.0
        last = self.last_beat
        return {"beats": len(self.times), "missed": missed, "span_s": span_s,
                "mean_interval_ms": span_s * 1000 / max(len(self.times) - 1, 1),
                "largest_gap": largest, "switches": switches, "faults": self.faults,
                "slowest_poll_ms": self.slowest_poll_s * 1000, "boot_id": self.boot_id,
                "last_host": last["host"] if last else None, "last_beat": last,
                "ok": bool(self.times) and not self.faults}


class Watcher:
    """Polls the files and feeds a Track."""

    def __init__(self, files):
        self.track = Track(files)
        self._open = {host: os.open(path, os.O_RDONLY) for host, path in files.items()}
        # What lies there already is not a beat: only a change is.
        self._last = {host: self._read(host) for host in files}
        self._polled_s = None

    def close(self):
        for fd in self._open.values():
            os.close(fd)

    def _read(self, host):
        return os.pread(self._open[host], beatdisk.BEAT_FORMAT.size, 0)

    def poll(self):
        seen = []
        for host in self._open:
            data = self._read(host)
            if data == self._last[host]:
                continue
            beat = beatdisk.decode_beat(data)
            if beat is None:
                continue   # half written; the next poll sees it whole
            self._last[host] = data
            seen.append((beat["sequence"], time.monotonic(), host, beat))
        # A poll that came late may find news on two hosts; which came first, the numbers tell.
        for _, time_s, host, beat in sorted(seen, key=lambda entry: entry[0]):
            self.track.add(time_s, host, beat)
        now_s = time.monotonic()
        if self._polled_s is not None:
            self.track.slowest_poll_s = max(self.track.slowest_poll_s, now_s - self._polled_s)
        self._polled_s = now_s


def raise_priority():
    """The measure must not wait for what it measures. Without the right to, go on."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except OSError:
        pass


def write_json(path, data):
    temporary = f"{path}.new"
    pathlib.Path(temporary).write_text(json.dumps(data, indent=1) + "\n")
    os.replace(temporary, path)


def watch(files, out, duration_s=None, trace=None):
    """Watches until the time is over or a signal comes, then writes the result."""
    stop = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(True))
    raise_priority()
    gc.disable()
    watcher = Watcher(files)
    print("watching", flush=True)
    start_s = time.monotonic()
    parent = os.getppid()
    while not stop and (duration_s is None or time.monotonic() - start_s < duration_s):
        watcher.poll()
        time.sleep(POLL_S)
        if os.getppid() != parent:
            break   # nobody is left who wants to know
    watcher.poll()
    watcher.close()
    track = watcher.track
    if trace:
        with open(trace, "w", encoding="ascii") as file:
            for when, place, sequence in zip(track.times, track.places, track.sequences):
                file.write(f"{when:.6f} {track.hosts[place]} {sequence}\n")
    result = track.result()
    write_json(out, result)
    return result


class Observer:
    """The watcher in a process of its own, for use in scenarios:

    with Observer({"a": path, "b": path}, out) as observer: …; then observer.result.
    """

    def __init__(self, files, out, trace=None):
        self._out = str(out)
        command = [sys.executable, __file__, "--out", self._out]
        if trace:
            command += ["--trace", str(trace)]
        command += [f"{host}={path}" for host, path in files.items()]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.result = None
        if self._process.stdout.readline().strip() != "watching":
            self._process.kill()
            self._process.wait()
            raise RuntimeError("the observer did not start")

    def stop(self):
        if self.result is None:
            self._process.terminate()
            self._process.wait(timeout=START_TIMEOUT_S)
            self._process.stdout.close()
            self.result = json.loads(pathlib.Path(self._out).read_text())
        return self.result

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.stop()
        except (OSError, ValueError, subprocess.SubprocessError):
            self._process.kill()
            if kind is None:
                raise


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="HOST=FILE", help="beat disk of each host")
    parser.add_argument("--out", required=True, help="where to write the result (JSON)")
    parser.add_argument("--trace", help="also write every beat seen: time, host, sequence")
    parser.add_argument("--duration", type=float, metavar="S", help="stop after so many seconds")
    arguments = parser.parse_args()
    files = dict(word.split("=", 1) for word in arguments.files)
    result = watch(files, arguments.out, arguments.duration, arguments.trace)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
