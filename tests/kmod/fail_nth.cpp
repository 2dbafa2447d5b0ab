// SPDX-License-Identifier: GPL-2.0-or-later
#include "fail_nth.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>

#include "kernel_log.h"

namespace ferry::kmod {
namespace {

// Far more than any operation here needs: a loop that gets there would go on for ever.
constexpr unsigned kMostAllocations = 5000;

int open_switch() { return open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC); }

}  // namespace

FailNth::FailNth(unsigned n) : fd_(open_switch()) {
  std::string text = std::to_string(n);
  if (pwrite(fd_.get(), text.data(), text.size(), 0) < 0)
    ADD_FAILURE() << "fail-nth: " << std::strerror(errno);
}

FailNth::~FailNth() { (void)fired(); }

bool FailNth::fired() {
  char left[32] = {};
  if (pread(fd_.get(), left, sizeof left - 1, 0) <= 0) ADD_FAILURE() << "cannot read fail-nth";
  (void)!pwrite(fd_.get(), "0", 1, 0);
  return std::atoi(left) == 0;
}

std::string FailNth::prepare() {
  if (!Fd(open_switch()).valid()) return "this kernel has no fault injection (fail-nth)";
  bool ready = true;
  for (const char* kind : {"failslab", "fail_page_alloc"}) {
    std::string place = debugfs(kind) + '/';
    ready &= put(place + "ignore-gfp-wait", "N") && put(place + "verbose", "0");
  }
  ready &= put(debugfs("failslab/cache-filter"), "N") &&
           put(debugfs("fail_page_alloc/ignore-gfp-highmem"), "N") &&
           put(debugfs("fail_page_alloc/min-order"), "0");
  return ready ? "" : "cannot set up failslab and fail_page_alloc in debugfs";
}

void fail_each_allocation(const std::string& what, const std::function<bool()>& operation,
                          const std::function<void(bool ok)>& afterwards) {
  unsigned refused = 0;
  for (unsigned n = 1; n <= kMostAllocations; ++n) {
    bool ok = false, fired = false;
    {
      FailNth one(n);
      ok = operation();
      fired = one.fired();
    }
    EXPECT_TRUE(ok || fired) << what << ": fails although no allocation did";
    refused += !ok;
    afterwards(ok);
    if (testing::Test::HasFatalFailure()) {
      ADD_FAILURE() << what << ": allocation " << n;
      return;
    }
    if (fired) continue;
    std::cout << "allocations: " << what << ": " << n - 1 << " failed one by one, " << refused
              << " of them made it fail\n";
    EXPECT_GT(n, 1u) << what << ": no allocation was made to fail";
    return;
  }
  ADD_FAILURE() << what << ": no end of allocations";
}

}  // namespace ferry::kmod
