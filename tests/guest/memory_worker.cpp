// SPDX-License-Identifier: GPL-2.0-or-later
// Works on more memory than the guest has, so that the swap disk is really in use. Each page is
// checked before it is rewritten: a page that came back wrong from swap or from a migration shows.
#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "block_device.h"
#include "shared.h"

namespace ferry::guest {
namespace {

constexpr int max_errors_printed = 20;
constexpr uint64_t batch_ns = 20'000'000;

class MemoryWorker {
 public:
  MemoryWorker(Shared& shared, const Options& options)
      : shared_(shared), versions_(options.memory_mib * 1024 * 1024 / block_size_bytes) {
    // The table tells which version a page must have, so it must not depend on swap itself.
    if (versions_.empty() || mlock(versions_.data(), versions_.size() * sizeof(uint32_t)) != 0)
      die("memory: cannot lock the table of %zu pages", versions_.size());
    size_t size = versions_.size() * block_size_bytes;
    void* mapping = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) die("memory: no address space for %zu bytes", size);
    madvise(mapping, size, MADV_NOHUGEPAGE);
    pages_ = static_cast<SealedBlock*>(mapping);
    if (getrandom(&seed_, sizeof(seed_), 0) != sizeof(seed_)) die("no random seed");
    random_ = seed_ | 1;
  }

  void prepare() {
    for (uint64_t number = 0; number < versions_.size(); number++) rewrite(number);
    shared_.ready |= ready_memory;
    say("memory: %zu pages filled, seed %llx", versions_.size(),
        static_cast<unsigned long long>(seed_));
  }

  void run() {
    uint64_t next_ns = monotonic_ns();
    uint64_t credit = 0;
    for (;;) {
      serve_requests();
      uint64_t now_ns = monotonic_ns();
      // After a stall go on at the set pace; do not catch up in a burst.
      next_ns = std::max(next_ns + batch_ns, now_ns);
      sleep_until_ns(next_ns);
      if (shared_.memory_paused) continue;
      credit += shared_.pages_per_s * batch_ns;
      for (; credit >= 1'000'000'000; credit -= 1'000'000'000) one_step();
    }
  }

 private:
  uint64_t draw(uint64_t below) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return (random_ >> 11) % below;
  }

  void serve_requests() {
    if (shared_.spoil_memory != spoiled_) {
      uint64_t number = draw(versions_.size());
      pages_[number].payload[100] ^= 1;
      say("memory: page %llu spoiled on request", static_cast<unsigned long long>(number));
      spoiled_ = shared_.spoil_memory;
    }
    if (shared_.memory.wanted != shared_.memory.done) verify();
  }

  // Three of four steps walk on through all pages (with an LRU list that means: from swap), one goes
  // to a small hot part that stays in RAM.
  void one_step() {
    uint64_t number;
    if (++steps_ % 4 == 0) {
      number = draw(std::max<uint64_t>(versions_.size() / 128, 1));
    } else {
      number = position_++;
      if (position_ == versions_.size()) {
        position_ = 0;
        shared_.memory_passes++;
      }
    }
    check(number, nullptr);
    rewrite(number);
  }

  void rewrite(uint64_t number) {
    versions_[number]++;
    seal(pages_[number], identity(number), monotonic_ns());
    shared_.pages_written++;
  }

  Identity identity(uint64_t number) const {
    return {page_magic, seed_, number, versions_[number]};
  }

  void check(uint64_t number, Report* report) {
    Finding finding = examine(pages_[number], identity(number));
    shared_.pages_verified++;
    if (report) report->checked++;
    if (finding == Finding::good) {
      if (report) report->good++;
      return;
    }
    std::string line = explain(pages_[number], identity(number), finding);
    if (shared_.page_errors < max_errors_printed) say("memory: VERIFY ERROR %s", line.c_str());
    if (report && report->errors == 0)
      std::strncpy(report->first_error, line.c_str(), sizeof(report->first_error) - 1);
    if (report) report->errors++;
    shared_.page_errors++;
  }

  void verify() {
    uint64_t wanted = shared_.memory.wanted;
    uint64_t start_ns = monotonic_ns();
    Report& report = shared_.memory;
    report.checked = report.good = report.errors = 0;
    report.first_error[0] = 0;
    for (uint64_t number = 0; number < versions_.size(); number++) check(number, &report);
    report.duration_ms = (monotonic_ns() - start_ns) / 1'000'000;
    report.done = wanted;
  }

  Shared& shared_;
  std::vector<uint32_t> versions_;
  SealedBlock* pages_ = nullptr;
  uint64_t seed_ = 0;
  uint64_t random_ = 1;
  uint64_t position_ = 0;
  uint64_t steps_ = 0;
  uint64_t spoiled_ = 0;
};

}  // namespace

void run_memory_worker(Shared& shared, const Options& options) {
  MemoryWorker worker(shared, options);
  worker.prepare();
  worker.run();
  __builtin_unreachable();
}

}  // namespace ferry::guest
