// SPDX-License-Identifier: GPL-2.0-or-later
#include "volume/identity.h"

#include <blkid/blkid.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string_view>

namespace ferry::volume {
namespace {

struct ProbeDeleter {
  void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
};
using Probe = std::unique_ptr<std::remove_pointer_t<blkid_probe>, ProbeDeleter>;

// Without the blanks that some firmware pads its serial numbers with; empty when there is no such file.
std::string attribute(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  constexpr std::string_view kBlanks(" \t\n\0", 4);
  const auto begin = line.find_first_not_of(kBlanks);
  if (begin == std::string::npos) return {};
  return line.substr(begin, line.find_last_not_of(kBlanks) - begin + 1);
}

// As the whole disk's table has it. Works on the disk's device node, which sysfs names.
std::string partition_uuid(const std::string& disk_node, const std::string& number) {
  Probe probe(blkid_new_probe_from_filename(disk_node.c_str()));
  if (!probe) return {};
  blkid_probe_enable_superblocks(probe.get(), 0);
  blkid_probe_enable_partitions(probe.get(), 1);
  const auto list = blkid_probe_get_partitions(probe.get());
  const auto partition = list ? blkid_partlist_get_partition_by_partno(list, std::atoi(number.c_str())) : nullptr;
  const char* uuid = partition ? blkid_partition_get_uuid(partition) : nullptr;
  return uuid ? uuid : "";
}

std::string disk_identity(const std::string& sysfs) {
  for (const char* place : {"/wwid", "/device/wwid"})
    if (auto wwid = attribute(sysfs + place); !wwid.empty()) return "wwid-" + wwid;
  for (const char* place : {"/serial", "/device/serial"})
    if (auto serial = attribute(sysfs + place); !serial.empty()) return "serial-" + serial;
  return {};
}

}  // namespace

std::string identity_of(const std::string& sysfs) {
  if (std::filesystem::exists(sysfs + "/dm")) return attribute(sysfs + "/dm/uuid");
  const std::string number = attribute(sysfs + "/partition");
  if (number.empty()) return disk_identity(sysfs);
  // A partition's directory lies in its disk's.
  std::error_code error;
  const auto disk = std::filesystem::canonical(sysfs, error).parent_path();
  if (error) return {};
  std::string node = disk.filename();
  std::ranges::replace(node, '!', '/');  // as sysfs writes the slash of cciss/c0d0
  if (auto uuid = partition_uuid("/dev/" + node, number); !uuid.empty()) return "partuuid-" + uuid;
  const std::string of_disk = disk_identity(disk);
  return of_disk.empty() ? of_disk : of_disk + "-part" + number;
}

std::map<std::string, std::string> mapped_devices(const std::string& sysfs) {
  std::map<std::string, std::string> devices;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(sysfs, error)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("dm-")) continue;
    if (auto uuid = attribute(entry.path() / "dm/uuid"); !uuid.empty()) devices.emplace(std::move(uuid), "/dev/" + name);
  }
  return devices;
}

}  // namespace ferry::volume
