// SPDX-License-Identifier: GPL-2.0-or-later
// Volumes that carry the filter, seen without the memory of who put it there.
#include <algorithm>

#include "base/log.h"
#include "filter/attachment.h"
#include "filter/netlink.h"
#include "filter/volume_table.h"

namespace ferry::filter {
namespace {

bool protects(ferry_state state) {
  return state == FERRY_STATE_FENCED || state == FERRY_STATE_GATED ||
         state == FERRY_STATE_RECEIVING;
}

}  // namespace

Result<std::vector<AttachedVolume>> list_attached() {
  auto names = dm::names();
  if (!names.ok()) return std::move(names).error();
  // Without the module there is no ferry table, so a missing family is not an error yet.
  std::vector<TrackerInfo> trackers;
  auto listed = list_trackers();
  if (listed.ok())
    trackers = std::move(*listed);
  else if (listed.error().code != Errc::not_found)
    return std::move(listed).error();

  std::vector<AttachedVolume> attached;
  for (const auto& name : *names) {
    auto volume = read_volume(name);
    if (!volume.ok()) {
      // Devices may vanish between the listing and the look.
      if (volume.error().code != Errc::not_found) spdlog::warn("{}", volume.error().message());
      continue;
    }
    if (!volume->tracker) continue;
    AttachedVolume entry;
    entry.name = name;
    entry.path = "/dev/mapper/" + name;
    entry.in_place = volume->in_place;
    entry.door_present = std::ranges::find(*names, door_name(name)) != names->end();
    entry.uuid = *volume->tracker;
    auto tracker = std::ranges::find(trackers, entry.uuid, &TrackerInfo::uuid);
    if (tracker != trackers.end()) entry.tracker = *tracker;
    attached.push_back(std::move(entry));
  }
  return attached;
}

Status remove_stale_devices() {
  auto names = dm::names();
  if (!names.ok()) return std::move(names).error();
  Status first = ok_status();
  for (const auto& name : *names) {
    auto info = dm::info(name);
    // One that is open is in use, or below a filter that is there.
    if (!info.ok() || !is_own_device(name, info->uuid) || info->open_count > 0) continue;
    if (auto removed = dm::remove(name); !removed.ok() && first.ok()) first = std::move(removed);
  }
  return first;
}

Status detach_volume(const std::string& path, bool release_fence) {
  auto volume = find_volume(path);
  if (!volume.ok()) return std::move(volume).error();
  const std::string& name = volume->info.name;
  if (!volume->tracker)
    return make_error(Errc::not_found, name + " does not carry the filter", 0,
                      "nothing needs to be detached");
  auto tracker = Tracker::open(*volume->tracker, true);
  if (!tracker.ok()) {
    if (tracker.error().code != Errc::busy) return std::move(tracker).error();
    return make_error(Errc::busy, "a migration is using the filter of " + name, 0,
                      "abort it first: migrate-ctl jobs, migrate-ctl abort");
  }
  auto info = tracker->info();
  if (!info.ok()) return std::move(info).error();
  if (protects(info->state) && !release_fence)
    return make_error(Errc::busy,
                      name + " is " + state_name(info->state) +
                          ": another host may own its contents, or they are not complete",
                      0, "see to whom they belong: migrate-ctl own; to free the volume: migrate-ctl release " + path);
  FERRY_TRY(tracker->disarm());
  FERRY_TRY(swap_table(name, volume->live, volume->original, volume->info.read_only));
  FERRY_TRY(remove_if_present(door_name(name)));
  if (!volume->in_place) FERRY_TRY(remove_if_present(lower_name(name)));
  return ok_status();
}

}  // namespace ferry::filter
