// SPDX-License-Identifier: GPL-2.0-or-later
// Base of the tests that listen to the filter's events. For use inside tests only.
#pragma once

#include <memory>
#include <utility>

#include "filter/netlink.h"
#include "suite.h"

namespace ferry::kmod {

// Listens from before the test's first step, so no event of it is missed.
class EventTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    auto monitor = filter::EventMonitor::open();
    ASSERT_FERRY_OK(monitor);
    monitor_ = std::make_unique<filter::EventMonitor>(std::move(*monitor));
  }
  std::unique_ptr<filter::EventMonitor> monitor_;
};

}  // namespace ferry::kmod
