// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/bars.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <mutex>
#include <optional>
#include <utility>

#include "base/fd.h"
#include "base/log.h"
#include "filter/attachment.h"
#include "filter/volume_table.h"
#include "volume/identity.h"
#include "volume/volume.h"

namespace ferry::daemon {
namespace {

// Tables and LVM's metadata are changed by one thread at a time.
std::mutex& turn() {
  static std::mutex mutex;
  return mutex;
}

bool is_of(const store::DiskRecord& disk, const std::string& id) {
  return disk.volume_id.empty() || disk.volume_id == id;
}

// The record's logical volume, active or not; nothing when it is none, or another has its name.
Result<std::optional<volume::LvState>> own_lv(const store::DiskRecord& disk) {
  auto lv = volume::find_lv(disk.path);
  if (lv && is_of(disk, lv->id)) return std::optional(std::move(*lv));
  if (lv || lv.error().code == Errc::usage || lv.error().code == Errc::not_found)
    return std::optional<volume::LvState>();
  return std::move(lv).error();
}

// True when it was not hidden and is now. Only a second line: the filter holds now, and the records make the next boot
// put it in again.
bool hide(const store::DiskRecord& disk) {
  auto lv = own_lv(disk);
  if (lv && (!*lv || (*lv)->hidden)) return false;
  Status hidden = lv ? volume::hide_lv(**lv) : Status(std::move(lv).error());
  if (!hidden)
    spdlog::warn("{}: {}; after a reboot it is active until ferry-bar.service bars it", disk.path,
                 hidden.error().message());
  return hidden.ok();
}

// Of the tracker in the volume's table; nothing when there is none, or it cannot be asked.
std::optional<filter::TrackerInfo> tracker_info(const filter::Volume& volume) {
  if (!volume.tracker) return std::nullopt;
  auto tracker = filter::Tracker::open(*volume.tracker, false);
  auto info = tracker ? tracker->info() : Result<filter::TrackerInfo>(tracker.error());
  if (!info) return std::nullopt;
  return std::move(*info);
}

// Only when it covers the volume.
std::optional<filter::TrackerInfo> covering_filter(const filter::Volume& volume) {
  auto info = tracker_info(volume);
  return info && info->bound() && !info->detached() ? info : std::nullopt;
}

// Only when it covers the volume and lets no write through.
std::optional<filter::TrackerInfo> closed_filter(const filter::Volume& volume) {
  auto info = covering_filter(volume);
  if (!info) return std::nullopt;
  switch (info->state) {
    case FERRY_STATE_FENCED:
    case FERRY_STATE_RECEIVING:
    case FERRY_STATE_GATED: return info;
    default: return std::nullopt;
  }
}

// Its ferryd has died: nobody will open it.
bool is_lost_gate(const filter::TrackerInfo& info) { return info.state != FERRY_STATE_FENCED && !info.owned(); }

// It would hold I/O for ever. It becomes the fence, so that there is no instant in between.
void fence_lost_gate(const filter::TrackerInfo& info, const std::string& path) {
  if (!is_lost_gate(info)) return;
  auto tracker = filter::Tracker::open(info.uuid, true);
  auto fenced = tracker ? tracker->fence() : Status(tracker.error());
  if (!fenced) spdlog::warn("{}: the gate stays, and holds all I/O: {}", path, fenced.error().message());
}

// A filter covers the volume, and a ferryd has it in its hands.
bool is_in_session(const std::string& path) {
  const auto volume = filter::find_volume(path);
  const auto info = volume ? covering_filter(*volume) : std::nullopt;
  return info && info->owned();
}

Status set_read_only(const std::string& path, bool on) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  const int flag = on ? 1 : 0;
  if (!fd.valid() || ::ioctl(fd.get(), BLKROSET, &flag) != 0)
    return sys_error("cannot make " + path + (on ? " read-only" : " writable"), errno);
  return ok_status();
}

bool is_read_only(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  int flag = 0;
  return fd.valid() && ::ioctl(fd.get(), BLKROGET, &flag) == 0 && flag != 0;
}

// Gate first, fence second: between the two, writes wait, so the last look at the record can still let them go on.
Result<Bar> put_filter_in(const std::string& path, const std::function<bool()>& still_barred) {
  filter::AttachRequest request;
  request.path = path;
  request.mode = FERRY_MODE_GATE;
  request.block_shift = FERRY_BLOCK_SHIFT_MAX;  // its maps are of no use, so they may be small
  request.replace_fenced = true;
  auto attached = filter::Attachment::attach(request);
  if (!attached) return std::move(attached).error();
  if (still_barred && !still_barred()) {
    FERRY_TRY(attached->tracker().open_gate());
    FERRY_TRY(attached->detach());
    return Bar::absent;
  }
  FERRY_TRY(attached->tracker().fence());
  FERRY_TRY(attached->leave());
  return Bar::fenced;
}

// A read-only device would get a read-only table. Somebody who has it open would write in the instant in which it is
// neither read-only nor gated; and without the module there is no sense in that instant.
Status lift_read_only(const filter::Volume& volume, const std::string& path) {
  if (!is_read_only(path)) return ok_status();
  if (auto module = filter::module_version(); !module) return std::move(module).error();
  if (volume.info.open_count > 0)
    return make_error(Errc::busy, path + " is read-only and open: the filter can only be put in when it is closed", 0,
                      "end what has it open (virsh list, fuser), then run: ferryd --bar-volumes");
  return set_read_only(path, false);
}

Result<Bar> bar_by_filter(const std::string& path, const std::function<bool()>& still_barred) {
  auto volume = filter::find_volume(path);
  if (!volume) return std::move(volume).error();
  if (const auto info = closed_filter(*volume)) {
    fence_lost_gate(*info, path);
    return Bar::held;
  }
  FERRY_TRY(lift_read_only(*volume, path));
  return put_filter_in(path, still_barred);
}

Result<Bar> bar_by_flag(const store::DiskRecord& disk, const std::string& path, const Error& why) {
  const bool news = !is_read_only(path);
  if (auto done = set_read_only(path, true); !done) {
    spdlog::error("{}: {}; {}. Start nothing that uses it", disk.path, why.message(), done.error().message());
    return std::move(done).error();
  }
  spdlog::log(news ? spdlog::level::err : spdlog::level::debug,
              "{}: the filter cannot be put in ({}). The device is read-only instead, which any "
              "administrator's tool may undo: load the module (modprobe dm-ferry), then run: ferryd --bar-volumes",
              disk.path, why.message());
  return Bar::read_only;
}

// Where the record's volume lies now: by its identity, else by its path. Errors: not_found when it is not there, busy
// when another volume is in its place.
Result<std::string> locate(const store::DiskRecord& disk, const std::map<std::string, std::string>& devices) {
  // By identity first: a device is there before udev has made its path.
  if (const auto mapped = devices.find(disk.volume_id); mapped != devices.end()) return mapped->second;
  const auto volume = volume::identify(disk.path);
  if (!volume) return volume.error();
  if (is_of(disk, volume->id)) return disk.path;
  return make_error(Errc::busy, disk.path + " is another volume (" + volume->id + ") than the one on record for disk " +
                                    disk.uuid + " (" + disk.volume_id + ')',
                    0, "look for the volume that was there (lvs -o +lv_uuid, dmsetup info)");
}

Result<Bar> bar_what_is_there(const store::DiskRecord& disk, const std::function<bool()>& still_barred) {
  const auto path = locate(disk, volume::mapped_devices());
  if (!path) {
    if (path.error().code == Errc::not_found) return Bar::absent;
    if (path.error().code != Errc::busy) return path.error();
    spdlog::warn("{}; it is left alone", path.error().message());
    return Bar::other_volume;
  }
  auto barred = bar_by_filter(*path, still_barred);
  if (barred) return barred;
  if (still_barred && !still_barred()) return Bar::absent;
  // The session that has the filter opens and closes the volume along with its record, which may be newer than ours.
  if (is_in_session(*path)) return barred;
  return bar_by_flag(disk, *path, barred.error());
}

std::optional<filter::TrackerInfo> follower_in(const store::DiskRecord& disk, const filter::Volume& volume) {
  if (!volume.tracker || filter::to_text(*volume.tracker) != disk.tracker) return std::nullopt;
  auto info = tracker_info(volume);
  return info && info->state == FERRY_STATE_TRACKING ? info : std::nullopt;
}

// Where the record's volume lies now, and what is in its table; nothing when it is not there.
std::optional<filter::Volume> volume_of(const store::DiskRecord& disk) {
  const auto path = locate(disk, volume::mapped_devices());
  if (!path) return std::nullopt;
  auto volume = filter::find_volume(*path);
  if (!volume) return std::nullopt;
  return std::move(*volume);
}

}  // namespace

std::string_view bar_name(Bar bar) {
  switch (bar) {
    case Bar::held: return "held";
    case Bar::fenced: return "fenced";
    case Bar::read_only: return "read_only";
    case Bar::absent: return "absent";
    case Bar::other_volume: return "other_volume";
  }
  return "unknown";
}

Result<Bar> bar_volume(const store::DiskRecord& disk, const std::function<bool()>& still_barred) {
  std::lock_guard lock(turn());
  auto bar = bar_what_is_there(disk, still_barred);
  if (!bar || *bar == Bar::other_volume || (still_barred && !still_barred())) return bar;
  // LVM comes second: its commands wait for each other, and one of them may be what took the bar away. A volume that
  // was not active may have become so before the mark.
  if (hide(disk) && *bar == Bar::absent) return bar_what_is_there(disk, still_barred);
  return bar;
}

bool is_closed(const store::DiskRecord& disk, const std::map<std::string, std::string>& devices) {
  const auto path = locate(disk, devices);
  if (!path) return path.error().code == Errc::not_found || path.error().code == Errc::busy;
  const auto volume = filter::find_volume(*path);
  return (volume && closed_filter(*volume)) || (is_read_only(*path) && !filter::module_version());
}

bool has_lost_gate(const store::DiskRecord& disk) {
  const auto volume = volume_of(disk);
  const auto info = volume ? closed_filter(*volume) : std::nullopt;
  return info && is_lost_gate(*info);
}

Result<std::vector<BarReport>> bar_all(const store::OwnershipStore& store) {
  auto disks = store.disks();
  if (!disks) return std::move(disks).error();
  std::vector<BarReport> reports;
  for (auto& disk : *disks) {
    if (!store::is_barred(disk.holding)) continue;
    auto bar = bar_volume(disk);
    if (bar)
      spdlog::info("{}: {} ({}, generation {}): {}", disk.path, store::holding_name(disk.holding), disk.reason,
                   disk.generation, bar_name(*bar));
    else
      spdlog::error("{}: {} and NOT barred: {}", disk.path, store::holding_name(disk.holding), bar.error().message());
    reports.push_back({std::move(disk), std::move(bar)});
  }
  return reports;
}

std::optional<filter::TrackerInfo> follower_of(const store::DiskRecord& disk) {
  if (disk.tracker.empty()) return std::nullopt;
  const auto volume = volume_of(disk);
  return volume ? follower_in(disk, *volume) : std::nullopt;
}

Status unbar_volume(const store::DiskRecord& disk, const std::function<bool()>& still_ours) {
  std::lock_guard lock(turn());
  const auto lv = own_lv(disk);
  if (!lv) return lv.error();
  if (*lv && (*lv)->hidden) FERRY_TRY(volume::show_lv(**lv));
  if (*lv && !(*lv)->active) FERRY_TRY(volume::activate_lv(**lv));
  if (*lv)
    if (auto done = volume::forget_made_for(**lv); !done) spdlog::warn("{}", done.error().message());
  const auto path = locate(disk, volume::mapped_devices());
  if (!path) return path.error();
  if (still_ours && !still_ours()) return ok_status();
  const auto volume = filter::find_volume(*path);
  if (volume && volume->tracker && !follower_in(disk, *volume)) FERRY_TRY(filter::detach_volume(*path, true));
  if (is_read_only(*path)) FERRY_TRY(set_read_only(*path, false));
  return ok_status();
}

Status remove_closed(const std::string& path) {
  std::lock_guard lock(turn());
  auto plain = filter::detach_volume(path, true);
  if (!plain && plain.error().code != Errc::not_found) return plain;
  return volume::remove_lv(path);
}

Result<Bar> wake_barred(const store::DiskRecord& disk) {
  {
    std::lock_guard lock(turn());
    const auto lv = own_lv(disk);
    if (!lv) return lv.error();
    if (*lv && !(*lv)->active) FERRY_TRY(volume::activate_lv(**lv));
  }
  return bar_volume(disk);
}

}  // namespace ferry::daemon
