// SPDX-License-Identifier: GPL-2.0-or-later
// What the guest's processes share, and the three blocks on the beat disk that the outside reads and
// writes. Shared lives in one anonymous MAP_SHARED mapping that the main process owns and locks.
// Thread-safety: atomics; a report is written before its `done` counter is raised.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "sealed_block.h"

namespace ferry::guest {

// Places on the beat disk (512-byte sectors 0, 8 and 16), each one 4 KiB block.
inline constexpr uint64_t beat_offset_bytes = 0;
inline constexpr uint64_t command_offset_bytes = 4096;
inline constexpr uint64_t answer_offset_bytes = 8192;

inline constexpr uint64_t beat_magic = 0x3154424559525246;     // "FRRYEBT1"
inline constexpr uint64_t command_magic = 0x444d435952524546;  // "FERRYCMD"
inline constexpr uint64_t answer_magic = 0x534e415952524546;   // "FERRYANS"

// Little endian; observer.py decodes the same fields in the same order.
struct BeatBlock {
  uint64_t magic;
  uint64_t sequence;
  uint64_t monotonic_ns;
  unsigned char boot_id[16];
  uint64_t records_written;
  uint64_t records_acked;
  uint64_t disk_errors;
  uint64_t pages_verified;
  uint64_t page_errors;
  uint64_t swap_used_kib;
  uint64_t blocks_cleared;
  uint64_t late_beats;       // beats that came more than 20 ms after the one before, by guest clock
  uint64_t longest_gap_us;   // by guest clock
  uint64_t ready;            // bit 0 disk prepared, bit 1 memory filled
  uint64_t worker_errors;    // processes that died, writes that failed
  uint32_t padding;
  uint32_t crc;              // of all bytes before it
};
static_assert(sizeof(BeatBlock) == 136);

struct MessageBlock {
  uint64_t magic;
  uint64_t id;
  uint32_t length_bytes;
  uint32_t crc;              // of the text
  char text[block_size_bytes - 24];
};
static_assert(sizeof(MessageBlock) == block_size_bytes);

using Counter = std::atomic<uint64_t>;
static_assert(Counter::is_always_lock_free);

struct Report {
  Counter wanted, done;      // the request is served when they are equal
  Counter checked, good, zero, untouched, undefined, errors, duration_ms;
  char first_error[256];
};

struct Shared {
  // settings, changed by commands
  Counter records_per_s, records_per_sync, pages_per_s;
  Counter disk_paused, memory_paused;
  Counter spoil_disk, spoil_memory;   // raised by one to have one block or page falsified
  // state
  Counter records_written, records_acked, blocks_cleared, disk_errors;
  Counter pages_verified, pages_written, memory_passes, page_errors;
  Counter swap_used_kib, swap_total_kib, ready, worker_errors;
  Counter beats, late_beats, longest_gap_us;
  Report disk, memory;
};

inline constexpr uint64_t ready_disk = 1;
inline constexpr uint64_t ready_memory = 2;

struct Options {
  uint64_t records_per_s = 50;
  uint64_t records_per_sync = 8;
  uint64_t prefill_percent = 25;
  uint64_t pages_per_s = 512;
  uint64_t memory_mib = 144;
  uint64_t beat_interval_us = 10000;
  uint64_t clear_percent = 4;      // share of writes that zero or discard instead
  uint64_t swap_rotational = 1;
  uint64_t swap_discard = 0;       // 0 no, 1 area at swapon, 2 area and freed clusters
};

uint64_t monotonic_ns();
void sleep_until_ns(uint64_t when_ns);
// Prints one line to the console.
void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Prints the reason and ends this process; the main process counts that as an error.
[[noreturn]] void die(const char* format, ...) __attribute__((format(printf, 1, 2)));

// The three workers; each runs in a process of its own and never returns.
[[noreturn]] void run_beat(Shared& shared, const Options& options);
[[noreturn]] void run_disk_writer(Shared& shared, const Options& options);
[[noreturn]] void run_memory_worker(Shared& shared, const Options& options);

}  // namespace ferry::guest
