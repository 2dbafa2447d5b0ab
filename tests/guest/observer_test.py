#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Unit tests of the outside instruments: run with `python3 -m unittest` or directly."""

import json
import pathlib
import tempfile
import unittest

import beatdisk
import observer

BOOT = "11" * 16


def beat(sequence, boot_id=BOOT):
    return {"sequence": sequence, "boot_id": boot_id}


class TrackTest(unittest.TestCase):
    def track(self, *entries):
        track = observer.Track(["a", "b"])
        for time_s, host, sequence in entries:
            track.add(time_s, host, beat(sequence))
        return track.result()

    def test_downtime_is_from_last_on_a_to_first_on_b(self):
        result = self.track((1.00, "a", 1), (1.01, "a", 2), (1.36, "b", 3), (1.37, "b", 4))
        self.assertTrue(result["ok"])
        self.assertEqual(len(result["switches"]), 1)
        self.assertAlmostEqual(result["switches"][0]["downtime_ms"], 350)
        self.assertAlmostEqual(result["largest_gap"]["gap_ms"], 350)
        self.assertTrue(result["largest_gap"]["switch"])
        self.assertEqual(result["last_host"], "b")

    def test_there_and_back_is_two_moves(self):
        result = self.track((1.0, "a", 1), (1.1, "b", 2), (1.2, "b", 3), (1.3, "a", 4))
        self.assertTrue(result["ok"])
        self.assertEqual([s["to"] for s in result["switches"]], ["b", "a"])

    def test_two_running_copies_are_a_fault(self):
        result = self.track((1.0, "a", 1), (1.1, "b", 2), (1.11, "a", 2), (1.12, "b", 3))
        self.assertFalse(result["ok"])
        self.assertIn("two copies", result["faults"][0]["text"])

    def test_source_that_runs_on_after_the_move_is_a_fault(self):
        result = self.track((1.0, "a", 1), (1.01, "a", 5), (1.1, "b", 2))
        self.assertFalse(result["ok"])

    def test_restarted_guest_is_a_fault(self):
        track = observer.Track(["a", "b"])
        track.add(1.0, "a", beat(7))
        track.add(1.1, "b", beat(1, "22" * 16))
        self.assertFalse(track.result()["ok"])

    def test_no_beat_at_all_is_not_ok(self):
        self.assertFalse(self.track()["ok"])

    def test_missed_beats_are_counted(self):
        self.assertEqual(self.track((1.0, "a", 1), (1.1, "a", 5))["missed"], 3)

    def test_a_stop_without_a_move_is_the_largest_gap(self):
        result = self.track((1.0, "a", 1), (3.0, "a", 2), (3.1, "b", 3))
        self.assertAlmostEqual(result["largest_gap"]["gap_ms"], 2000)
        self.assertFalse(result["largest_gap"]["switch"])


class FileTest(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.files = {name: pathlib.Path(self._folder.name) / name for name in "ab"}
        for path in self.files.values():
            beatdisk.create(path)

    def write(self, host, sequence, spoil=False):
        data = bytearray(beatdisk.encode_beat(sequence=sequence, boot_id=BOOT))
        if spoil:
            data[40] ^= 1
        with open(self.files[host], "r+b") as file:
            file.write(data)

    def test_beat_survives_the_round_trip(self):
        data = beatdisk.encode_beat(sequence=9, swap_used_kib=77, boot_id=BOOT)
        found = beatdisk.decode_beat(data)
        self.assertEqual((found["sequence"], found["swap_used_kib"], found["boot_id"]),
                         (9, 77, BOOT))

    def test_half_written_beat_is_left_for_later(self):
        watcher = observer.Watcher(self.files)
        self.addCleanup(watcher.close)
        self.write("a", 1, spoil=True)
        watcher.poll()
        self.assertEqual(len(watcher.track.times), 0)
        self.write("a", 1)
        watcher.poll()
        self.assertEqual(list(watcher.track.sequences), [1])

    def test_what_lay_there_before_is_no_beat(self):
        self.write("b", 5)
        watcher = observer.Watcher(self.files)
        self.addCleanup(watcher.close)
        watcher.poll()
        self.assertEqual(len(watcher.track.times), 0)

    def test_late_poll_orders_news_of_two_hosts_by_sequence(self):
        watcher = observer.Watcher(self.files)
        self.addCleanup(watcher.close)
        self.write("b", 10)
        self.write("a", 11)
        watcher.poll()
        self.assertEqual(list(watcher.track.sequences), [10, 11])
        self.assertEqual(watcher.track.faults, [])

    def test_observer_process_reports_what_it_saw(self):
        out = pathlib.Path(self._folder.name) / "out.json"
        with observer.Observer(self.files, out) as process:
            self.write("a", 1)
        self.assertEqual(process.result, json.loads(out.read_text()))
        self.assertEqual(process.result["beats"], 1)

    def test_answer_is_found_on_either_disk(self):
        files = list(self.files.values())
        number = beatdisk.send_command(files, "report")
        self.assertIsNone(beatdisk.read_answer(files, number))
        text = b'{"ok":true}'
        block = beatdisk.MESSAGE_HEAD.pack(beatdisk.ANSWER_MAGIC, number, len(text),
                                           beatdisk.zlib.crc32(text)) + text
        with open(files[1], "r+b") as file:
            file.seek(beatdisk.ANSWER_OFFSET)
            file.write(block)
        self.assertEqual(beatdisk.read_answer(files, number), {"ok": True})
        self.assertIsNone(beatdisk.read_answer(files, number + 1))

    def test_commands_have_growing_ids(self):
        files = [self.files["a"]]
        self.assertLess(beatdisk.send_command(files, "x"), beatdisk.send_command(files, "y"))

    def test_missing_answer_is_an_error(self):
        with self.assertRaises(beatdisk.NoAnswer):
            beatdisk.ask([self.files["a"]], "report", timeout_s=0.1)


if __name__ == "__main__":
    unittest.main()
