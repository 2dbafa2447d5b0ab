// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/control_loop.h"

#include <gtest/gtest.h>

#include <vector>

namespace ferry::daemon {
namespace {

TEST(ControlLoop, RunsInOrder) {
  std::vector<int> seen;
  {
    ControlLoop loop;
    for (int n = 0; n < 1000; ++n) loop.post([&seen, n] { seen.push_back(n); });
  }
  ASSERT_EQ(seen.size(), 1000u);
  for (int n = 0; n < 1000; ++n) EXPECT_EQ(seen[n], n);
}

TEST(ControlLoop, DelayedTasksComeInTheOrderOfTheirTimes) {
  ControlLoop loop;
  std::promise<std::vector<int>> done;
  auto seen = std::make_shared<std::vector<int>>();
  loop.post_after(std::chrono::milliseconds(40), [&done, seen] {
    seen->push_back(2);
    done.set_value(*seen);
  });
  loop.post_after(std::chrono::milliseconds(10), [seen] { seen->push_back(1); });
  EXPECT_EQ(done.get_future().get(), (std::vector<int>{1, 2}));
}

TEST(ControlLoop, TasksMayPostTasks) {
  ControlLoop loop;
  std::promise<void> done;
  loop.post([&] { loop.post([&] { done.set_value(); }); });
  done.get_future().wait();
  EXPECT_EQ(loop.call([] { return 42; }), 42);
}

TEST(Worker, FinishesEverythingBeforeItEnds) {
  int count = 0;
  {
    Worker worker;
    for (int n = 0; n < 100; ++n) worker.post([&count] { ++count; });
  }
  EXPECT_EQ(count, 100);
}

}  // namespace
}  // namespace ferry::daemon
