// SPDX-License-Identifier: GPL-2.0-or-later
// Uevents: the kernel's own announcements of devices, without udev. They tell of each table that became live in a
// device-mapper device, by whomever, and of modules that were loaded.
// Owns one socket. Thread-safety: one thread at a time; move-only.
#pragma once

#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace ferry::daemon {

class Uevents {
 public:
  static Result<Uevents> open();

  // For poll().
  int fd() const { return fd_.get(); }
  // Takes what has come. True when some of it may concern a volume or the filter's module, or when announcements were
  // lost. Never blocks.
  bool take();

  // Pure: one announcement, "ACTION@DEVPATH" with its NUL-separated rest.
  static bool concerns_volumes(std::string_view announcement);

 private:
  explicit Uevents(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace ferry::daemon
