// SPDX-License-Identifier: GPL-2.0-or-later
// Writes records over the data disk and knows, for every block, what it must hold. The writer is
// synchronous: a write that has returned is what the block must hold from then on, so the check is
// exact (stricter than "synced or newer").
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "block_device.h"
#include "shared.h"

#include <sys/random.h>

namespace ferry::guest {
namespace {

constexpr uint64_t chunk_blocks = 64;
constexpr uint64_t max_run_blocks = 16;
constexpr uint64_t max_tracked_blocks = 2u << 20;  // 8 GiB of disk, 16 MiB of table
constexpr int max_errors_printed = 20;

// What a block must hold. `value` is the sequence of a record or the sum of untouched content.
struct Expected {
  enum Kind : uint32_t { untouched, record, zero, undefined };
  uint32_t value;
  Kind kind;
};

class DiskWriter {
 public:
  DiskWriter(Shared& shared, const Options& options)
      : shared_(shared), options_(options), device_("data"),
        buffer_(make_aligned<SealedBlock>(chunk_blocks)) {
    uint64_t blocks = device_.size_bytes() / block_size_bytes;
    if (blocks == 0 || blocks > max_tracked_blocks)
      die("data disk has %llu blocks, 1 to %llu can be tracked",
          static_cast<unsigned long long>(blocks),
          static_cast<unsigned long long>(max_tracked_blocks));
    expected_.resize(blocks);
    if (getrandom(&seed_, sizeof(seed_), 0) != sizeof(seed_)) die("no random seed");
    random_ = seed_ | 1;
    // The zero buffer rule of MCL_FUTURE: nothing of this process may be swapped out, or a check
    // would fight the memory worker for RAM.
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) die("disk writer: mlockall failed");
  }

  // Notes the content found on the disk, then writes records over its first part.
  void prepare() {
    for_each_chunk([this](uint64_t first, uint64_t count) {
      for (uint64_t i = 0; i < count; i++) note_found(first + i, buffer_.get()[i]);
    });
    uint64_t end = expected_.size() * options_.prefill_percent / 100;
    for (uint64_t first = 0; first < end; first += chunk_blocks)
      write_records(first, std::min(chunk_blocks, end - first));
    sync();
    shared_.ready |= ready_disk;
    say("disk: %zu blocks, seed %llx, %s", expected_.size(),
        static_cast<unsigned long long>(seed_),
        device_.can_discard() ? "can discard" : "cannot discard");
  }

  void run() {
    uint64_t next_ns = monotonic_ns();
    for (;;) {
      serve_requests();
      uint64_t rate = shared_.records_per_s;
      if (shared_.disk_paused || rate == 0) {
        sync();
        sleep_until_ns(monotonic_ns() + 10'000'000);
        next_ns = monotonic_ns();
        continue;
      }
      uint64_t done = one_step();
      next_ns += done * 1'000'000'000 / rate;
      uint64_t now_ns = monotonic_ns();
      // After a stall go on at the set rate; do not catch up in a burst.
      next_ns = std::max(next_ns, now_ns > 100'000'000 ? now_ns - 100'000'000 : 0);
      while (next_ns > monotonic_ns() && !request_waits())
        sleep_until_ns(std::min(next_ns, monotonic_ns() + 50'000'000));
    }
  }

 private:
  uint64_t draw(uint64_t below) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return (random_ >> 11) % below;
  }

  bool request_waits() const {
    return shared_.disk.wanted != shared_.disk.done || shared_.spoil_disk != spoiled_;
  }

  void serve_requests() {
    if (shared_.spoil_disk != spoiled_) {
      spoil();
      spoiled_ = shared_.spoil_disk;
    }
    if (shared_.disk.wanted != shared_.disk.done) verify();
  }

  // Half of the writes go to a tenth of the disk, as real guests have hot spots.
  uint64_t choose_block() {
    uint64_t blocks = expected_.size();
    uint64_t hot = std::max<uint64_t>(blocks / 10, 1);
    return draw(2) == 0 ? draw(hot) : draw(blocks);
  }

  uint64_t one_step() {
    uint64_t first = choose_block();
    uint64_t dice = draw(100);
    uint64_t count = 1;
    if (dice < options_.clear_percent || dice >= 80) count = 1 + draw(max_run_blocks);
    count = std::min<uint64_t>(count, expected_.size() - first);
    if (dice < options_.clear_percent) {
      clear(first, count);
    } else {
      write_records(first, count);
    }
    if (unsynced_ >= std::max<uint64_t>(shared_.records_per_sync, 1)) sync();
    return count;
  }

  void write_records(uint64_t first, uint64_t count) {
    uint64_t now_ns = monotonic_ns();
    sequence_++;
    for (uint64_t i = 0; i < count; i++)
      seal(buffer_.get()[i], {record_magic, seed_, first + i, sequence_}, now_ns);
    insist("write", first, [&] {
      return device_.write(buffer_.get(), count * block_size_bytes, first * block_size_bytes);
    });
    for (uint64_t i = 0; i < count; i++)
      expected_[first + i] = {static_cast<uint32_t>(sequence_), Expected::record};
    unsynced_ += count;
    shared_.records_written += count;
  }

  void clear(uint64_t first, uint64_t count) {
    uint64_t offset = first * block_size_bytes;
    uint64_t size = count * block_size_bytes;
    if (device_.can_discard() && draw(2) == 0) {
      insist("discard", first, [&] { return device_.discard(offset, size); });
      insist("read", first, [&] { return device_.read(buffer_.get(), size, offset); });
      // A discard promises nothing about the content. What is seen now must stay.
      for (uint64_t i = 0; i < count; i++) note_cleared(first + i, buffer_.get()[i]);
    } else {
      insist("zero", first, [&] { return device_.zero(offset, size); });
      for (uint64_t i = 0; i < count; i++) expected_[first + i] = {0, Expected::zero};
    }
    unsynced_ += 1;
    shared_.blocks_cleared += count;
  }

  void note_found(uint64_t number, const SealedBlock& content) {
    if (is_zero(&content, sizeof(content))) {
      expected_[number] = {0, Expected::zero};
    } else {
      expected_[number] = {short_sum(&content, sizeof(content)), Expected::untouched};
    }
  }

  void note_cleared(uint64_t number, const SealedBlock& content) {
    Expected& expected = expected_[number];
    if (is_zero(&content, sizeof(content))) {
      expected = {0, Expected::zero};
    } else if (judge(number, content) != Finding::good) {
      expected = {0, Expected::undefined};
    }
  }

  void sync() {
    if (shared_.records_acked == shared_.records_written && unsynced_ == 0) return;
    insist("sync", 0, [this] { return device_.sync(); });
    unsynced_ = 0;
    shared_.records_acked = shared_.records_written.load();
  }

  // A guest must never see an error, so each one counts; then again until the device works, which
  // keeps the table exact.
  template <typename Operation>
  void insist(const char* what, uint64_t block, Operation operation) {
    while (int error = operation()) {
      uint64_t errors = ++shared_.worker_errors;
      if (errors <= max_errors_printed)
        say("disk: %s of block %llu failed: %s", what, static_cast<unsigned long long>(block),
            std::strerror(error));
      sleep_until_ns(monotonic_ns() + 100'000'000);
    }
  }

  template <typename Visit>
  void for_each_chunk(Visit visit) {
    for (uint64_t first = 0; first < expected_.size(); first += chunk_blocks) {
      uint64_t count = std::min<uint64_t>(chunk_blocks, expected_.size() - first);
      insist("read", first, [&] {
        return device_.read(buffer_.get(), count * block_size_bytes, first * block_size_bytes);
      });
      visit(first, count);
    }
  }

  Finding judge(uint64_t number, const SealedBlock& content) const {
    const Expected& expected = expected_[number];
    switch (expected.kind) {
      case Expected::record: return examine(content, identity(number));
      case Expected::zero:
        if (is_zero(&content, sizeof(content))) return Finding::good;
        return content.magic == record_magic ? Finding::stale : Finding::foreign;
      case Expected::untouched:
        return short_sum(&content, sizeof(content)) == expected.value ? Finding::good
                                                                      : Finding::damaged;
      case Expected::undefined: return Finding::good;
    }
    return Finding::damaged;
  }

  Identity identity(uint64_t number) const {
    bool record = expected_[number].kind == Expected::record;
    return {record_magic, seed_, number, record ? expected_[number].value : 0};
  }

  void verify() {
    uint64_t wanted = shared_.disk.wanted;
    uint64_t start_ns = monotonic_ns();
    sync();
    Report& report = shared_.disk;
    report.good = report.zero = report.untouched = report.undefined = report.errors = 0;
    report.first_error[0] = 0;
    for_each_chunk([&](uint64_t first, uint64_t count) {
      for (uint64_t i = 0; i < count; i++) verify_block(first + i, buffer_.get()[i]);
    });
    report.checked = expected_.size();
    report.duration_ms = (monotonic_ns() - start_ns) / 1'000'000;
    report.done = wanted;
  }

  void verify_block(uint64_t number, const SealedBlock& content) {
    Report& report = shared_.disk;
    Finding finding = judge(number, content);
    if (finding == Finding::good) {
      switch (expected_[number].kind) {
        case Expected::record: report.good++; break;
        case Expected::zero: report.zero++; break;
        case Expected::untouched: report.untouched++; break;
        case Expected::undefined: report.undefined++; break;
      }
      return;
    }
    std::string line = explain(content, identity(number), finding);
    if (report.errors == 0)
      std::strncpy(report.first_error, line.c_str(), sizeof(report.first_error) - 1);
    if (report.errors < max_errors_printed) say("disk: VERIFY ERROR %s", line.c_str());
    report.errors++;
    shared_.disk_errors++;
  }

  // Puts an older record where a newer one belongs: what a lost write looks like.
  void spoil() {
    for (uint64_t number = 0; number < expected_.size(); number++) {
      if (expected_[number].kind != Expected::record || expected_[number].value < 2) continue;
      seal(*buffer_, {record_magic, seed_, number, expected_[number].value - 1}, monotonic_ns());
      insist("write", number, [&] {
        return device_.write(buffer_.get(), block_size_bytes, number * block_size_bytes);
      });
      say("disk: block %llu spoiled on request", static_cast<unsigned long long>(number));
      return;
    }
  }

  Shared& shared_;
  const Options& options_;
  BlockDevice device_;
  Aligned<SealedBlock> buffer_;
  std::vector<Expected> expected_;
  uint64_t seed_ = 0;
  uint64_t random_ = 1;
  uint64_t sequence_ = 0;
  uint64_t unsynced_ = 0;
  uint64_t spoiled_ = 0;
};

}  // namespace

void run_disk_writer(Shared& shared, const Options& options) {
  DiskWriter writer(shared, options);
  writer.prepare();
  writer.run();
  __builtin_unreachable();
}

}  // namespace ferry::guest
