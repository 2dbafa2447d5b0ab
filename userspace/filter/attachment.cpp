// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/attachment.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "filter/volume_table.h"

namespace ferry::filter {
namespace {

void warn_unless(const Status& status) {
  if (!status.ok()) spdlog::warn("{}", status.error().message());
}

Error carries_filter(const Volume& volume, const std::string& state) {
  return make_error(Errc::busy, volume.info.name + " already carries the filter (" + state + ')', 0,
                    "see migrate-ctl jobs; give it back with: migrate-ctl detach /dev/mapper/" +
                        volume.info.name);
}

Status check_settled(const Volume& volume) {
  if (volume.info.suspended)
    return make_error(Errc::busy, "the volume " + volume.info.name + " is suspended", 0,
                      "wait for the lvm command that works on it, or: dmsetup resume " +
                          volume.info.name);
  if (volume.info.inactive_table)
    return make_error(Errc::busy, "somebody is changing the table of " + volume.info.name, 0,
                      "wait for the lvm command that works on it");
  return ok_status();
}

Status check_stackable(const Volume& volume) {
  for (const auto& line : volume.original)
    if (!may_be_stacked(line.type))
      return make_error(Errc::unsupported,
                        volume.info.name + " is a volume of type " + line.type, 0,
                        "the filter goes into linear, striped and thin volumes and into snapshot "
                        "origins; convert the volume (lvconvert) or copy it");
  return ok_status();
}

// May a new filter of this mode take the place of one that is there, and nobody owns?
Status check_replaceable(const Volume& volume, ferry_state state, const AttachRequest& request) {
  // A dead daemon's tracking filter lets everything through: nothing is lost by starting afresh.
  if (state == FERRY_STATE_TRACKING) return ok_status();
  if (request.replace_fenced && request.mode == FERRY_MODE_GATE && state != FERRY_STATE_FROZEN)
    return ok_status();
  return carries_filter(volume, state_name(state));
}

}  // namespace

struct Attachment::State {
  Volume volume;                  // as found; volume.original is what goes back
  Fd guard;                       // keeps lvremove away from before the door until after it
  std::optional<Tracker> previous;  // the tracker that is being replaced
  std::optional<Tracker> tracker;
  DmTable ours;
  Fd door;
  bool in_place = true;
  bool lower_made = false;
  bool door_made = false;
  bool over = false;              // detached or left
  bool replaced_fence = false;    // the volume was fenced before us

  const std::string& name() const { return volume.info.name; }
  std::string live_name() const;
  Status open_volume(const AttachRequest& request);
  Status adopt_previous(const AttachRequest& request);
  Status adopt(const TrackerUuid& uuid);
  Status make_door(bool writable);
  Status insert();
  void undo();
  Status detach();
  Status remove_devices(bool with_lower);
};

// What the volume is called now: lvm can rename it under us, the guard goes with it. The door keeps
// the name it was made with.
std::string Attachment::State::live_name() const {
  struct stat status {};
  if (::fstat(guard.get(), &status) != 0) return name();
  return dm::name_of(status.st_rdev).value_or(name());
}

Status Attachment::State::open_volume(const AttachRequest& request) {
  auto found = find_volume(request.path);
  if (!found.ok()) return std::move(found).error();
  volume = std::move(*found);
  FERRY_TRY(check_settled(volume));
  guard = Fd(::open(request.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!guard.valid()) return sys_error("cannot open the volume " + request.path, errno);
  if (volume.tracker) FERRY_TRY(adopt_previous(request));
  in_place = volume.tracker ? volume.in_place : all_lines_are(volume.original, "linear");
  if (!in_place) FERRY_TRY(check_stackable(volume));
  return ok_status();
}

Status Attachment::State::adopt_previous(const AttachRequest& request) {
  auto old = Tracker::open(*volume.tracker, true);
  if (!old.ok())
    return old.error().code == Errc::busy ? Status(carries_filter(volume, "in use"))
                                          : Status(std::move(old).error());
  auto info = old->info();
  if (!info.ok()) return std::move(info).error();
  FERRY_TRY(check_replaceable(volume, info->state, request));
  replaced_fence = info->state == FERRY_STATE_FENCED;
  previous = std::move(*old);
  return ok_status();
}

// The tracker that is in the table becomes ours as it is; no table changes.
Status Attachment::State::adopt(const TrackerUuid& uuid) {
  const auto lost = [this](const std::string& why) {
    return make_error(Errc::failed, "what was written to " + name() + " is not known any more: " + why);
  };
  if (!previous || previous->uuid() != uuid) return lost("the filter that saw it is gone");
  auto info = previous->info();
  if (!info.ok()) return std::move(info).error();
  if (info->state != FERRY_STATE_TRACKING || !info->intact())
    return lost("the filter is " + std::string(state_name(info->state)) + " (" + flag_names(info->flags) + ')');
  tracker = std::move(previous);
  previous.reset();
  return ok_status();
}

// The door shows the lower device past the filter. It exists before the filter goes in, so that no
// step is left that could fail once the guest's table has been changed.
Status Attachment::State::make_door(bool writable) {
  FERRY_TRY(remove_if_present(door_name(name())));
  DmTable lines = volume.original;
  if (!in_place) {
    if (!volume.tracker) {
      FERRY_TRY(remove_if_present(lower_name(name())));
      FERRY_TRY(dm::create({lower_name(name()), lower_uuid(volume.info.uuid, name()),
                            volume.original, volume.info.read_only, true}));
      lower_made = true;
    }
    auto lower = dm::info(lower_name(name()));
    if (!lower.ok()) return std::move(lower).error();
    lines = {{0, sectors_of(volume.original), "linear", dm::device_text(lower->device) + " 0"}};
    ours = stacked_ferry(dm::device_text(lower->device), sectors_of(lines), tracker->uuid());
  } else {
    ours = linear_to_ferry(volume.original, tracker->uuid());
  }
  FERRY_TRY(dm::create({door_name(name()), door_uuid(volume.info.uuid, name()), lines,
                        !writable || volume.info.read_only, true}));
  door_made = true;
  std::string path = "/dev/mapper/" + door_name(name());
  door = Fd(::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC));
  if (!door.valid()) return sys_error("cannot open the door " + path, errno);
  return ok_status();
}

Status Attachment::State::insert() {
  // Its table goes away on purpose: no alarm.
  if (previous) FERRY_TRY(previous->disarm());
  FERRY_TRY(swap_table(name(), volume.live, ours, volume.info.read_only));
  auto info = tracker->info();
  if (!info.ok()) return std::move(info).error();
  if (!info->bound() || info->invalid())
    return make_error(Errc::failed,
                      "the filter is in the table of " + name() + " but does not cover it (" +
                          flag_names(info->flags) + ')');
  previous.reset();
  return ok_status();
}

// Steps back, last first, to what was found. Failures are told and the rest is still tried.
void Attachment::State::undo() {
  over = true;
  // By what is there: a swap may have failed after its table went live.
  auto live = dm::table(name());
  if (!live.ok()) {
    spdlog::warn("{}", live.error().message());
  } else if (*live == ours) {
    warn_unless(tracker->disarm());
    warn_unless(swap_table(name(), ours, volume.live, volume.info.read_only));
  }
  warn_unless(remove_devices(lower_made));
}

Status Attachment::State::remove_devices(bool with_lower) {
  door.reset();
  if (door_made) FERRY_TRY(dm::remove(door_name(name())));
  door_made = false;
  if (with_lower) FERRY_TRY(remove_if_present(lower_name(name())));
  lower_made = false;
  return ok_status();
}

Status Attachment::State::detach() {
  if (over) return ok_status();
  auto info = tracker->info();
  if (!info.ok()) return std::move(info).error();
  if (info->state == FERRY_STATE_FENCED)
    return make_error(Errc::busy, name() + " is fenced: its VM lives on another host", 0,
                      "release it with: migrate-ctl release /dev/mapper/" + name());
  const std::string now = live_name();
  auto live = dm::table(now);
  if (!live.ok()) return std::move(live).error();
  if (*live == ours) {
    if (info->state == FERRY_STATE_FROZEN) warn_unless(tracker->thaw());
    FERRY_TRY(tracker->disarm());
    FERRY_TRY(swap_table(now, ours, volume.original, volume.info.read_only));
  } else if (*live != volume.original) {
    // A refresh or an extension by lvm took our lines out; what it put there is not ours to change.
    spdlog::warn("{}: somebody else changed the table meanwhile; it is left as it is", now);
  }
  FERRY_TRY(remove_devices(!in_place));
  over = true;
  guard.reset();
  tracker.reset();
  return ok_status();
}

Attachment::Attachment(std::unique_ptr<State> state) : state_(std::move(state)) {}
Attachment::Attachment(Attachment&&) noexcept = default;

Attachment& Attachment::operator=(Attachment&& other) noexcept {
  std::swap(state_, other.state_);  // the other's destructor ends what was here
  return *this;
}

bool Attachment::replaced_fence() const { return state_->replaced_fence; }

Attachment::~Attachment() {
  if (!state_ || state_->over) return;
  auto info = state_->tracker->info();
  bool keep = info.ok() && (info->state == FERRY_STATE_FENCED || info->state == FERRY_STATE_GATED);
  warn_unless(keep ? leave() : detach());
}

Result<Attachment> Attachment::attach(const AttachRequest& request) {
  auto state = std::make_unique<State>();
  FERRY_TRY(state->open_volume(request));
  if (request.adopt) {
    FERRY_TRY(state->adopt(*request.adopt));
    if (Status door = state->make_door(request.door_writable); !door.ok()) {
      state->over = true;
      warn_unless(state->remove_devices(false));
      return std::move(door).error();
    }
    spdlog::info("{}: going on with the filter that is there", state->name());
    return Attachment(std::move(state));
  }
  auto uuid = random_uuid();
  if (!uuid.ok()) return std::move(uuid).error();
  const uint64_t sectors = sectors_of(state->volume.original);
  auto block_shift = request.block_shift != 0
                         ? Result<uint32_t>(request.block_shift)
                         : choose_block_shift(sectors * 512, request.map_memory_bytes);
  if (!block_shift.ok()) return std::move(block_shift).error();
  auto tracker = Tracker::create(*uuid, state->name(), sectors, *block_shift, request.mode);
  if (!tracker.ok()) return std::move(tracker).error();
  state->tracker = std::move(*tracker);
  Status status = state->make_door(request.door_writable);
  if (status.ok()) status = state->insert();
  if (!status.ok()) {
    state->undo();
    return std::move(status).error();
  }
  spdlog::info("{}: filter inserted {}, blocks of {} KiB", state->name(),
               state->in_place ? "in place" : "on top of " + lower_name(state->name()),
               (uint64_t{1} << *block_shift) >> 10);
  return Attachment(std::move(state));
}

Tracker& Attachment::tracker() { return *state_->tracker; }

void Attachment::drop_cached() const {
  if (const int failed = ::posix_fadvise(state_->guard.get(), 0, 0, POSIX_FADV_DONTNEED); failed != 0)
    spdlog::warn("{}: what is cached of it may be old: errno {}", state_->name(), failed);
}

int Attachment::door_fd() const { return state_->door.get(); }
uint64_t Attachment::size_bytes() const { return sectors_of(state_->volume.original) * 512; }
const std::string& Attachment::name() const { return state_->name(); }
bool Attachment::in_place() const { return state_->in_place; }

bool Attachment::intact() {
  if (state_->over) return false;
  auto info = state_->tracker->info();
  if (!info.ok() || !info->intact()) return false;
  auto live = dm::table(state_->live_name());
  return live.ok() && *live == state_->ours;
}

Status Attachment::detach() { return state_->detach(); }

Status Attachment::leave() {
  if (state_->over) return ok_status();
  state_->over = true;
  Status status = state_->remove_devices(false);
  state_->guard.reset();
  state_->tracker.reset();
  return status;
}

}  // namespace ferry::filter
