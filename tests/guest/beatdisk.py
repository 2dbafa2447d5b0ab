# SPDX-License-Identifier: GPL-2.0-or-later
"""The beat disk from outside: reading signs of life, giving commands, reading answers.

Layout as in shared.h: block 0 the beat, block 1 (sector 8) a command, block 2 (sector 16) an answer.
Works on the backing files of the beat disks of all hosts at once, because the guest may move between
a command and its answer.
"""

import json
import os
import struct
import time
import zlib

BLOCK_SIZE = 4096
COMMAND_OFFSET = 4096
ANSWER_OFFSET = 8192
DISK_SIZE = 1 << 20
BEAT_MAGIC = 0x3154424559525246
COMMAND_MAGIC = 0x444d435952524546
ANSWER_MAGIC = 0x534e415952524546
BEAT_FORMAT = struct.Struct("<QQQ16sQQQQQQQQQQQII")
MESSAGE_HEAD = struct.Struct("<QQII")
BEAT_FIELDS = ("magic", "sequence", "monotonic_ns", "boot_id", "records_written", "records_acked",
               "disk_errors", "pages_verified", "page_errors", "swap_used_kib", "blocks_cleared",
               "late_beats", "longest_gap_us", "ready", "worker_errors", "padding", "crc")
READY_ALL = 3


class NoAnswer(Exception):
    """The guest did not do what was asked in time."""


def create(path):
    """A new, empty beat disk."""
    with open(path, "wb") as file:
        file.truncate(DISK_SIZE)


def decode_beat(data):
    """The fields of a beat, or None when the block holds none or is half written."""
    if len(data) < BEAT_FORMAT.size:
        return None
    beat = dict(zip(BEAT_FIELDS, BEAT_FORMAT.unpack_from(data)))
    if beat["magic"] != BEAT_MAGIC:
        return None
    if zlib.crc32(data[:BEAT_FORMAT.size - 4]) != beat["crc"]:
        return None
    beat["boot_id"] = beat["boot_id"].hex()
    return beat


def encode_beat(**fields):
    """The inverse of decode_beat; fields not given are 0."""
    values = [fields.get(name, 0) for name in BEAT_FIELDS]
    values[BEAT_FIELDS.index("magic")] = BEAT_MAGIC
    values[BEAT_FIELDS.index("boot_id")] = bytes.fromhex(fields.get("boot_id", "00" * 16))
    body = BEAT_FORMAT.pack(*values)[:-4]
    return body + struct.pack("<I", zlib.crc32(body))


def read_beat(path):
    with open(path, "rb", buffering=0) as file:
        return decode_beat(file.read(BEAT_FORMAT.size))


def send_command(files, text):
    """Writes a command to every file and returns its id. Ids grow: the guest obeys each one once."""
    number = time.time_ns()
    data = text.encode()
    block = MESSAGE_HEAD.pack(COMMAND_MAGIC, number, len(data), zlib.crc32(data)) + data
    for path in files:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(fd, block.ljust(BLOCK_SIZE, b"\0"), COMMAND_OFFSET)
        finally:
            os.close(fd)
    return number


def read_answer(files, number):
    """The answer to command `number` as a dict, or None when there is none yet."""
    for path in files:
        with open(path, "rb", buffering=0) as file:
            file.seek(ANSWER_OFFSET)
            block = file.read(BLOCK_SIZE)
        if len(block) < MESSAGE_HEAD.size:
            continue
        magic, found, length, crc = MESSAGE_HEAD.unpack_from(block)
        text = block[MESSAGE_HEAD.size:MESSAGE_HEAD.size + length]
        if magic == ANSWER_MAGIC and found == number and zlib.crc32(text) == crc:
            return json.loads(text)
    return None


def ask(files, text, timeout_s=120.0):
    """Gives a command and waits for its answer."""
    number = send_command(files, text)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = read_answer(files, number)
        if answer is not None:
            return answer
        time.sleep(0.02)
    beats = {path: (read_beat(path) or {}).get("sequence") for path in files}
    raise NoAnswer(f"no answer to \"{text}\" in {timeout_s:g} s; last beats: {beats}")


def wait_ready(files, timeout_s=180.0, swap_kib=0, is_alive=lambda: True):
    """Waits until all workers run and at least `swap_kib` of swap are in use; returns the beat."""
    deadline = time.monotonic() + timeout_s
    newest = None
    start = {path: (read_beat(path) or {}).get("boot_id") for path in files}
    while time.monotonic() < deadline and is_alive():
        for path in files:
            beat = read_beat(path)
            # Beats of an earlier guest lie on a disk used again; only a live one counts.
            if beat and (beat["boot_id"] != start[path] or alive(path, beat)):
                newest = beat
                if beat["ready"] == READY_ALL and beat["swap_used_kib"] >= swap_kib:
                    return beat
        time.sleep(0.05)
    raise NoAnswer(f"guest not ready after {timeout_s:g} s; last beat: {newest}")


def alive(path, beat, within_s=1.0):
    """True when a newer beat of the same guest comes in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        now = read_beat(path)
        if now and now["boot_id"] == beat["boot_id"] and now["sequence"] != beat["sequence"]:
            return True
        time.sleep(0.01)
    return False
