// SPDX-License-Identifier: GPL-2.0-or-later
#include "records.h"

namespace ferry::sim {

migration::GrantFate Records::fate(std::uint32_t session, std::uint64_t generation) const {
  std::optional<store::DiskRecord> disk;
  if (record_) {
    disk.emplace();
    disk->holding = record_->holding;
    disk->generation = record_->generation;
    disk->session = std::to_string(record_->session);
  }
  return migration::fate_of(disk, std::to_string(session), generation);
}

}  // namespace ferry::sim
