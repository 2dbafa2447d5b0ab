// SPDX-License-Identifier: GPL-2.0-or-later
// What the ownership records mean, in the words of the admin API and for people: who owns a disk, what taking it by
// force risks, and why something is refused.
// Thread-safety: pure functions.
#pragma once

#include <optional>
#include <string>

#include "api/owner_types.h"
#include "filter/attachment.h"
#include "store/disk_record.h"

namespace ferry::daemon {

// What lies under a record's path now.
struct VolumeView {
  api::Presence presence = api::Presence::present;
  std::optional<std::string> filter;
  std::optional<bool> closed;  // nothing: cannot be told
};

api::OwnedDisk view_of(const std::string& host_name, const store::SessionRecord& session,
                       const store::DiskRecord& disk, const VolumeView& now);
// How to call the other host of a session; never empty.
std::string peer_name(const store::SessionRecord& session);
std::string filter_word(const filter::AttachedVolume& volume);

// `command`: what the operator has to add the word to. usage; for the holdings granting and given.
Error force_risk(const store::SessionRecord& session, const store::DiskRecord& disk, const std::string& command);
// Why disks that are held so cannot be taken by force. busy.
Error force_refusal(const store::SessionRecord& session, const store::DiskRecord& disk);
// Why disks that are held so are not to be released. busy, or owner_unknown while they are in doubt.
Error release_refusal(const store::SessionRecord& session, const store::DiskRecord& disk);

}  // namespace ferry::daemon
