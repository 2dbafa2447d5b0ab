// SPDX-License-Identifier: GPL-2.0-or-later
// Steps on one volume's table that attaching and detaching share: finding the volume behind a path,
// reading what is live, swapping tables with a check before and after.
// Thread-safety: plain functions; two processes changing one volume are told apart by the checks.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "filter/dm.h"
#include "filter/table.h"

namespace ferry::filter {

struct Volume {
  dm::DeviceInfo info;
  DmTable live;                  // the table as it is now
  std::optional<TrackerUuid> tracker;  // named by the live table when it is a ferry table
  bool in_place = true;          // of a ferry table: false when it lies on NAME-ferryreal
  DmTable original;              // the plain table: live itself, or what the ferry lines stand for
};

// Follows links to the device and reads it. Errors say why a device cannot carry the filter:
// no device-mapper device, request based, of a type that cannot be stacked, or half changed.
Result<Volume> find_volume(const std::string& path);
Result<Volume> read_volume(const std::string& name);

// Loads `next` and makes it live, provided that the live table still is `expected`. On an error the
// live table is `expected` again or still, or somebody else's (the message says so).
Status swap_table(const std::string& name, const DmTable& expected, const DmTable& next,
                  bool read_only);

// Removes NAME-ferry or NAME-ferryreal; no error when it does not exist.
Status remove_if_present(const std::string& name);

}  // namespace ferry::filter
