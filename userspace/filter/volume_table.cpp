// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/volume_table.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/log.h"

namespace ferry::filter {
namespace {

// The tables name devices as "major:minor".
std::optional<dev_t> device_of_text(const std::string& text) {
  unsigned major_number = 0, minor_number = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%u:%u%c", &major_number, &minor_number, &rest) != 2)
    return std::nullopt;
  return makedev(major_number, minor_number);
}

// Fills in what a ferry table stands for.
Status understand_ferry_table(Volume& volume) {
  volume.tracker = tracker_of(volume.live);
  if (!volume.tracker)
    return make_error(Errc::unsupported,
                      "the table of " + volume.info.name + " mixes ferry lines with others", 0,
                      "put the plain table back by hand: lvchange --refresh");
  auto first = parse_ferry_line(volume.live.front());
  auto device = first ? device_of_text(first->device) : std::nullopt;
  auto lower = device ? dm::name_of(*device) : std::nullopt;
  volume.in_place = !(lower && *lower == lower_name(volume.info.name));
  auto original = volume.in_place ? ferry_to_linear(volume.live) : dm::table(*lower);
  if (!original.ok()) return std::move(original).error();
  volume.original = std::move(*original);
  return ok_status();
}

Error changed_by_other(const std::string& name, const char* when) {
  return make_error(Errc::busy, "the table of " + name + " was changed by somebody else " + when, 0,
                    "no lvm command may change the volume now; look at: dmsetup table " + name);
}

// After a failed resume. The kernel suspends before it swaps, so a refused table leaves the volume
// suspended on the old one, and a target that refuses to start leaves it suspended on the new one.
Status undo_swap(const std::string& name, const DmTable& expected, const DmTable& next,
                 bool read_only) {
  if (Status cleared = dm::clear(name); !cleared.ok())
    spdlog::warn("{}", cleared.error().message());
  auto live = dm::table(name);
  if (live.ok() && *live == next) FERRY_TRY(dm::load(name, expected, read_only));
  auto info = dm::info(name);
  if (!info.ok()) return std::move(info).error();
  if (!info->suspended && !info->inactive_table) return ok_status();
  return dm::resume(name);
}

}  // namespace

Result<Volume> read_volume(const std::string& name) {
  auto info = dm::info(name);
  if (!info.ok()) return std::move(info).error();
  auto live = dm::table(name);
  if (!live.ok()) return std::move(live).error();
  Volume volume;
  volume.info = std::move(*info);
  volume.live = std::move(*live);
  bool any_ferry = std::ranges::any_of(volume.live,
                                       [](const DmLine& line) { return line.type == "ferry"; });
  if (any_ferry)
    FERRY_TRY(understand_ferry_table(volume));
  else
    volume.original = volume.live;
  return volume;
}

Result<Volume> find_volume(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    return sys_error("cannot find the volume " + path, errno);
  if (!S_ISBLK(status.st_mode))
    return make_error(Errc::unsupported, path + " is not a block device", 0,
                      "Ferry moves logical volumes; put the disk on LVM");
  auto name = dm::name_of(status.st_rdev);
  if (!name)
    return make_error(Errc::unsupported, path + " is not a device-mapper volume", 0,
                      "the filter cannot be put into a raw disk, partition or loop device while it "
                      "is in use; put the disk on LVM");
  if (dm::is_request_based(status.st_rdev))
    return make_error(Errc::unsupported, path + " is a request-based device-mapper device", 0,
                      "put LVM on top of it, or use multipath with queue_mode bio");
  return read_volume(*name);
}

Status swap_table(const std::string& name, const DmTable& expected, const DmTable& next,
                  bool read_only) {
  auto before = dm::table(name);
  if (!before.ok()) return std::move(before).error();
  if (*before != expected) return changed_by_other(name, "before the swap");
  FERRY_TRY(dm::load(name, next, read_only));
  if (Status status = dm::resume(name); !status.ok()) {
    if (Status undone = undo_swap(name, expected, next, read_only); !undone.ok())
      spdlog::error("{} after a failed swap: {}", name, undone.error().message());
    return status;
  }
  auto after = dm::table(name);
  if (!after.ok()) return std::move(after).error();
  if (*after != next) return changed_by_other(name, "during the swap");
  return ok_status();
}

Status remove_if_present(const std::string& name) {
  auto info = dm::info(name);
  if (!info.ok())
    return info.error().code == Errc::not_found ? ok_status() : Status(std::move(info).error());
  if (info->open_count > 0)
    return make_error(Errc::busy, "the device " + name + " is still open", 0,
                      "another migration uses the volume: see migrate-ctl jobs");
  return dm::remove(name);
}

}  // namespace ferry::filter
