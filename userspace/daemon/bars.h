// SPDX-License-Identifier: GPL-2.0-or-later
// Bars: what keeps a volume closed on a host that must not write to it. A bar is the filter, fenced (or a closed
// gate); for a logical volume besides, a mark in LVM's metadata that keeps it inactive after a reboot; and where the
// filter cannot be put in, the block device's own read-only flag, until it can.
// The records decide: a volume has to be barred before its record says so, and its record has to say "ours" before
// the bar is lifted. BarWatch and the next boot hold to the records.
// Thread-safety: any thread; the calls of one process take turns, for they change tables and run LVM's commands.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "filter/tracker.h"
#include "store/ownership_store.h"

namespace ferry::daemon {

enum class Bar {
  held,          // the filter was there and refuses or holds writes
  fenced,        // put in now: writes fail, reads pass
  read_only,     // no filter, but the device is read-only; logged as an error with what to do
  absent,        // there is no such volume now: nothing can write to it
  other_volume,  // not there, and another lies under its path, which was left alone: the record is of no use
};
std::string_view bar_name(Bar bar);

// Makes sure that nobody writes to the volume, whatever is there now, and wherever it lies now: the record's identity
// counts more than its path. An error says that somebody
// may. `still_barred` is asked again when the filter holds all writes and none has failed yet: a record that was
// changed meanwhile gets its volume back unharmed, and the answer is `absent`. busy, and nothing done, when a session
// has the volume's filter in its hands and lets writes through.
Result<Bar> bar_volume(const store::DiskRecord& disk, const std::function<bool()>& still_barred = {});

// For looking often: asks the kernel alone. `devices`: volume::mapped_devices(), as they are now. True when the
// filter refuses or holds the writes to the volume, when there is no such volume, or when it is read-only and there is
// no filter to be had.
bool is_closed(const store::DiskRecord& disk, const std::map<std::string, std::string>& devices);

// The volume has a gate that a ferryd shut which has died since: nobody will open it.
bool has_lost_gate(const store::DiskRecord& disk);

struct BarReport {
  store::DiskRecord disk;
  Result<Bar> bar;
};
// Every barred record of the store. Tells the log of each; an error when the records cannot be read.
Result<std::vector<BarReport>> bar_all(const store::OwnershipStore& store);

// The filter that the record names, if it is there and lets writes through, noting them for the way back.
std::optional<filter::TrackerInfo> follower_of(const store::DiskRecord& disk);

// The way back, for a volume that is ours again: mark and read-only flag are taken away, the volume is made active,
// the filter taken out, unless it is there to follow the writes of an owner. It may have been lost already: each step
// asks whether there is anything to do. busy when a migration has the filter. The record must say "ours" (or be
// forgotten) before. `still_ours` is asked again when LVM's commands are done, which may take minutes: a volume whose
// record was changed meanwhile is left as it is.
Status unbar_volume(const store::DiskRecord& disk, const std::function<bool()>& still_ours = {});

// Takes the filter out of a logical volume, if it carries one, and removes the volume. No bar is put in meanwhile,
// although its record may still demand one. busy while a migration has the filter.
Status remove_closed(const std::string& path);

// Makes a barred volume that LVM keeps inactive active, and bars it at once: for a migration that goes on or comes
// back. Between the two the volume is plain for an instant, unknown to anybody who does not look for it.
Result<Bar> wake_barred(const store::DiskRecord& disk);

}  // namespace ferry::daemon
