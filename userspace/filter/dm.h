// SPDX-License-Identifier: GPL-2.0-or-later
// Device-mapper calls as Results. Works with and without udev: where udev runs, each change waits
// until its rules are through, so that /dev/mapper nodes exist then; else, and when udev does not
// answer within 30 s, the library makes them.
// Thread-safety: libdevmapper is not thread-safe; one lock inside orders all calls.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "filter/table.h"

namespace ferry::filter::dm {

struct DeviceInfo {
  std::string name;
  std::string uuid;
  dev_t device = 0;
  int open_count = 0;
  uint32_t event_nr = 0;
  bool suspended = false;
  bool read_only = false;
  bool inactive_table = false;  // somebody has loaded a table and not resumed yet
};

// not_found when there is no such device.
Result<DeviceInfo> info(const std::string& name);
Result<DmTable> table(const std::string& name);
// Names of all devices.
Result<std::vector<std::string>> names();

struct CreateRequest {
  std::string name;
  std::string uuid;
  DmTable table;
  bool read_only = false;
  bool hidden = true;  // tell udev's rules not to look inside and to make no extra links
};
// Makes the device, loads its table and starts it; nothing is left behind on an error.
Status create(const CreateRequest& request);
// Loads the inactive table; the device goes on with the live one.
Status load(const std::string& name, const DmTable& table, bool read_only);
// Drops the inactive table.
Status clear(const std::string& name);
// Makes the loaded table the live one. The kernel suspends (without flushing held bios and without
// freezing a filesystem), swaps and resumes inside this one call: a process killed around it never
// leaves the device suspended. Also ends a suspend.
Status resume(const std::string& name);
// For tests and repairs: leaves the device suspended.
Status suspend(const std::string& name);
// Removes a device nobody has open; retries for some seconds while udev looks at it.
Status remove(const std::string& name);

// "major:minor" as tables name devices.
std::string device_text(dev_t device);
// The dm name of a device number; nothing when it is no device-mapper device.
std::optional<std::string> name_of(dev_t device);
// True when the device's driver is request based (multipath in rq mode).
bool is_request_based(dev_t device);

}  // namespace ferry::filter::dm
