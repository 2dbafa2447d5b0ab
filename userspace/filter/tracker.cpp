// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/tracker.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace ferry::filter {
namespace {

constexpr char kLoadHint[] = "load the kernel module: modprobe dm-ferry";

Result<Fd> open_control() {
  Fd fd(::open(FERRY_DEVICE, O_RDWR | O_CLOEXEC));
  if (fd.valid()) return fd;
  int sys = errno;
  bool missing = sys == ENOENT || sys == ENXIO || sys == ENODEV;
  return sys_error("cannot open " FERRY_DEVICE, sys, missing ? kLoadHint : "run as root");
}

TrackerInfo decode(const ferry_info& raw) {
  TrackerInfo info;
  std::copy(std::begin(raw.uuid), std::end(raw.uuid), info.uuid.begin());
  info.name.assign(raw.name, strnlen(raw.name, sizeof raw.name));
  info.state = static_cast<ferry_state>(raw.state);
  info.flags = raw.flags;
  info.block_shift = raw.block_shift;
  info.sectors = raw.sectors;
  info.nr_blocks = raw.nr_blocks;
  info.swaps = raw.swaps;
  info.dirty = raw.dirty;
  info.newly = raw.newly;
  info.held = raw.held;
  info.inflight = raw.inflight;
  info.fenced_writes = raw.fenced_writes;
  return info;
}

// What the errno of a tracker call means to an admin.
const char* hint_of(int sys) {
  switch (sys) {
    case ESTALE:
      return "the filter may have missed a write (its table was replaced or the device changed); "
             "start over with a full copy";
    case ETIMEDOUT:
      return "the disk did not finish its writes in time; everything was thawed";
    case EPERM:
    case EACCES:
      return "run as root; only the owner of a tracker may change it";
    default:
      return "";
  }
}

}  // namespace

const char* state_name(ferry_state state) {
  switch (state) {
    case FERRY_STATE_TRACKING: return "tracking";
    case FERRY_STATE_FROZEN: return "frozen";
    case FERRY_STATE_FENCED: return "fenced";
    case FERRY_STATE_RECEIVING: return "receiving";
    case FERRY_STATE_GATED: return "gated";
  }
  return "unknown";
}

std::string flag_names(uint32_t flags) {
  static constexpr std::array<std::pair<uint32_t, const char*>, 6> kNames{{
      {FERRY_TF_BOUND, "bound"},
      {FERRY_TF_INVALID, "invalid"},
      {FERRY_TF_DETACHED, "detached"},
      {FERRY_TF_FREEZE_LOST, "freeze_lost"},
      {FERRY_TF_DISARMED, "disarmed"},
      {FERRY_TF_OWNED, "owned"},
  }};
  std::string text;
  for (auto [bit, name] : kNames)
    if (flags & bit) text += (text.empty() ? "" : ",") + std::string(name);
  return text.empty() ? "-" : text;
}

Result<ModuleVersion> module_version() {
  auto fd = open_control();
  if (!fd.ok()) return std::move(fd).error();
  ferry_version raw{};
  raw.size = sizeof raw;
  if (ioctl(fd->get(), FERRY_IOC_VERSION, &raw) != 0)
    return sys_error("cannot ask the dm-ferry module for its version", errno, kLoadHint);
  return ModuleVersion{raw.abi_major, raw.abi_minor, raw.features};
}

Result<Tracker> Tracker::create(const TrackerUuid& uuid, const std::string& name, uint64_t sectors,
                                uint32_t block_shift, ferry_mode mode) {
  auto fd = open_control();
  if (!fd.ok()) return std::move(fd).error();
  ferry_create raw{};
  raw.size = sizeof raw;
  std::copy(uuid.begin(), uuid.end(), raw.uuid);
  if (name.size() >= sizeof raw.name)
    return make_error(Errc::usage, "the volume name " + name + " is too long for the filter");
  std::memcpy(raw.name, name.data(), name.size());
  raw.sectors = sectors;
  raw.block_shift = block_shift;
  raw.mode = mode;
  if (ioctl(fd->get(), FERRY_IOC_CREATE, &raw) != 0) {
    int sys = errno;
    return sys_error("cannot make a tracker for " + name, sys,
                     sys == ENOMEM ? "free memory on this host" : hint_of(sys));
  }
  Tracker tracker(std::move(*fd), uuid);
  FERRY_TRY(tracker.learn());
  return tracker;
}

Result<Tracker> Tracker::open(const TrackerUuid& uuid, bool owner) {
  auto fd = open_control();
  if (!fd.ok()) return std::move(fd).error();
  ferry_open raw{};
  raw.size = sizeof raw;
  raw.flags = owner ? FERRY_OPEN_OWNER : 0;
  std::copy(uuid.begin(), uuid.end(), raw.uuid);
  if (ioctl(fd->get(), FERRY_IOC_OPEN, &raw) != 0) {
    int sys = errno;
    return sys_error("cannot open the tracker " + to_text(uuid), sys,
                     sys == EBUSY ? "another process uses it: see migrate-ctl jobs" : hint_of(sys));
  }
  Tracker tracker(std::move(*fd), uuid);
  FERRY_TRY(tracker.learn());
  return tracker;
}

Status Tracker::learn() {
  auto now = info();
  if (!now.ok()) return std::move(now).error();
  name_ = now->name;
  nr_blocks_ = now->nr_blocks;
  block_shift_ = now->block_shift;
  return ok_status();
}

Result<TrackerInfo> Tracker::info() const {
  ferry_info raw{};
  raw.size = sizeof raw;
  if (ioctl(fd_.get(), FERRY_IOC_INFO, &raw) != 0)
    return sys_error("cannot read the tracker " + to_text(uuid_), errno);
  return decode(raw);
}

Result<RetiredMap> Tracker::swap() {
  ferry_swap raw{};
  raw.size = sizeof raw;
  if (ioctl(fd_.get(), FERRY_IOC_SWAP, &raw) != 0)
    return sys_error("cannot swap the maps of " + name_, errno, hint_of(errno));
  auto map = RetiredMap::map(fd_.get(), raw, nr_blocks_, block_shift_);
  // The round's bits are in a map nobody can read; the caller gives the tracker up on this error.
  return map;
}

Status Tracker::freeze(uint32_t timeout_ms, uint32_t watchdog_ms) {
  ferry_freeze raw{};
  raw.size = sizeof raw;
  raw.timeout_ms = timeout_ms;
  raw.watchdog_ms = watchdog_ms;
  if (ioctl(fd_.get(), FERRY_IOC_FREEZE, &raw) != 0)
    return sys_error("cannot freeze " + name_, errno, hint_of(errno));
  return ok_status();
}

Status Tracker::mark(uint64_t first_block, uint64_t nr_blocks) {
  ferry_range raw{};
  raw.size = sizeof raw;
  raw.first = first_block;
  raw.nr = nr_blocks;
  if (ioctl(fd_.get(), FERRY_IOC_MARK, &raw) != 0)
    return sys_error("cannot mark blocks of " + name_, errno, hint_of(errno));
  return ok_status();
}

Status Tracker::simple(unsigned long request, const char* verb) {
  if (ioctl(fd_.get(), request) != 0)
    return sys_error(std::string("cannot ") + verb + ' ' + name_, errno, hint_of(errno));
  return ok_status();
}

Status Tracker::release() { return simple(FERRY_IOC_RELEASE, "release the retired map of"); }
Status Tracker::thaw() { return simple(FERRY_IOC_THAW, "thaw"); }
Status Tracker::fence() { return simple(FERRY_IOC_FENCE, "fence"); }
Status Tracker::unfence() { return simple(FERRY_IOC_UNFENCE, "unfence"); }
Status Tracker::close_gate() { return simple(FERRY_IOC_GATE, "close the gate of"); }
Status Tracker::open_gate() { return simple(FERRY_IOC_OPEN_GATE, "open the gate of"); }
Status Tracker::disarm() { return simple(FERRY_IOC_DISARM, "disarm"); }

}  // namespace ferry::filter
