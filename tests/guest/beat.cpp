// SPDX-License-Identifier: GPL-2.0-or-later
// The sign of life: one O_DIRECT block every few milliseconds. A process of its own, small and wholly
// locked, so that swapping cannot hold it up: the gaps the observer sees must be the host's.
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <cstdio>
#include <cstring>

#include "block_device.h"
#include "shared.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace ferry::guest {
namespace {

constexpr uint64_t late_us = 20'000;

void read_boot_id(unsigned char (&id)[16]) {
  std::string text = read_line("/proc/sys/kernel/random/boot_id");
  size_t at = 0;
  for (unsigned char& byte : id) {
    while (at < text.size() && text[at] == '-') at++;
    unsigned value = 0;
    if (at + 2 > text.size() || std::sscanf(text.c_str() + at, "%2x", &value) != 1) die("no boot id");
    byte = static_cast<unsigned char>(value);
    at += 2;
  }
}

void fill_beat(BeatBlock& beat, const Shared& shared) {
  beat.records_written = shared.records_written;
  beat.records_acked = shared.records_acked;
  beat.disk_errors = shared.disk_errors;
  beat.pages_verified = shared.pages_verified;
  beat.page_errors = shared.page_errors;
  beat.swap_used_kib = shared.swap_used_kib;
  beat.blocks_cleared = shared.blocks_cleared;
  beat.late_beats = shared.late_beats;
  beat.longest_gap_us = shared.longest_gap_us;
  beat.ready = shared.ready;
  beat.worker_errors = shared.worker_errors;
  beat.crc = crc32(&beat, offsetof(BeatBlock, crc));
}

}  // namespace

void run_beat(Shared& shared, const Options& options) {
  BlockDevice device("beat");
  auto block = make_aligned<unsigned char>(block_size_bytes);
  BeatBlock beat{};
  beat.magic = beat_magic;
  read_boot_id(beat.boot_id);
  if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) die("beat: mlockall failed");
  sched_param priority{};
  priority.sched_priority = 50;
  if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0) die("beat: no real-time priority");
  // Allocations of this process must not wait for pages to be written to swap.
  if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0) say("beat: PR_SET_IO_FLUSHER refused");

  uint64_t interval_ns = options.beat_interval_us * 1000;
  uint64_t next_ns = monotonic_ns();
  uint64_t last_ns = 0;
  for (;;) {
    uint64_t now_ns = monotonic_ns();
    uint64_t gap_us = last_ns ? (now_ns - last_ns) / 1000 : 0;
    if (gap_us > late_us) shared.late_beats++;
    if (gap_us > shared.longest_gap_us) shared.longest_gap_us = gap_us;
    last_ns = now_ns;
    beat.sequence++;
    beat.monotonic_ns = now_ns;
    fill_beat(beat, shared);
    std::memcpy(block.get(), &beat, sizeof(beat));
    if (device.write(block.get(), block_size_bytes, beat_offset_bytes) != 0) shared.worker_errors++;
    shared.beats++;
    next_ns += interval_ns;
    now_ns = monotonic_ns();
    if (next_ns < now_ns) next_ns = now_ns;
    sleep_until_ns(next_ns);
  }
}

}  // namespace ferry::guest
