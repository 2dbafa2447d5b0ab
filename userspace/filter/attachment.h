// SPDX-License-Identifier: GPL-2.0-or-later
// Attachment: the filter inside one live device-mapper volume, and the daemon's own door past it.
// A volume made of linear lines gets ferry lines in their place (no second layer); one of another
// stateless type is stacked on NAME-ferryreal. Every step that fails undoes the steps before it.
// Owning: the tracker's fd, the door, and a guard descriptor on the volume, against lvremove.
// Thread-safety: one thread at a time; move-only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "filter/dm.h"
#include "filter/granularity.h"
#include "filter/table.h"
#include "filter/tracker.h"

namespace ferry::filter {

struct AttachRequest {
  std::string path;                      // /dev/vg/lv, /dev/mapper/NAME, any link to them
  ferry_mode mode = FERRY_MODE_TRACK;
  uint32_t block_shift = 0;              // 0 = the smallest block whose maps fit into map_memory_bytes
  uint64_t map_memory_bytes = kMapMemoryDefaultBytes;
  bool door_writable = false;            // source: read-only door; destination: writable
  // Take over a volume that an earlier migration left fenced (or gated): the new gate-mode tracker
  // replaces the old one by one table swap, with no instant of plain access in between.
  bool replace_fenced = false;
  // Go on with the filter that is there and tracks, maps included, if it is this one. Errors: failed, when it is
  // not there, or has lost trust in its maps.
  std::optional<TrackerUuid> adopt{};
};

class Attachment {
 public:
  static Result<Attachment> attach(const AttachRequest& request);
  Attachment(Attachment&&) noexcept;
  Attachment& operator=(Attachment&&) noexcept;
  // Detaches, unless leave() or detach() was called or the tracker is FENCED or GATED: those states
  // protect complete data, so the filter stays in the table as after leave().
  ~Attachment();

  Tracker& tracker();
  // The lower device past the filter, O_DIRECT, read-only or read-write as requested.
  int door_fd() const;
  // Whoever has read the volume in the ordinary way, udev say, has left it in the host's page cache, which knows nothing
  // of what came in through the door since. Waits for nothing.
  void drop_cached() const;
  uint64_t size_bytes() const;
  const std::string& name() const;  // dm name of the volume
  bool in_place() const;
  // The volume was fenced when we came: calling the session off has to fence it again.
  bool replaced_fence() const;
  // False as soon as somebody replaced our table or the filter lost trust in its maps.
  bool intact();

  // Plain table back exactly as it was, door and lower device gone. busy while FENCED: call
  // tracker().unfence() first or leave(). After an error it may be called again.
  Status detach();
  // Keeps the filter in the table; closes the door and the handles. The stacked lower device stays.
  Status leave();

 private:
  struct State;
  explicit Attachment(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct AttachedVolume {
  std::string name;             // dm name
  std::string path;             // /dev/mapper/NAME
  bool in_place = true;
  bool door_present = false;    // NAME-ferry exists: a migration runs, or its daemon died
  TrackerUuid uuid{};
  std::optional<TrackerInfo> tracker;  // nothing when the kernel does not know the uuid
};

// All volumes with a ferry table, from the device-mapper tables and the kernel's trackers; needs no
// memory of earlier runs.
Result<std::vector<AttachedVolume>> list_attached();

// Removes the doors and lower devices that nobody uses any more: of a process that died with its volume attached, or in
// the middle of attaching it. The filter stays. Not while a thread attaches a volume: its door is not open at once.
Status remove_stale_devices();

// Puts the plain table back by hand and removes door and lower device. busy when another process
// owns the tracker, or when the volume is fenced or gated and `release_fence` is false.
Status detach_volume(const std::string& path, bool release_fence);

}  // namespace ferry::filter
