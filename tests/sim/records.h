// SPDX-License-Identifier: GPL-2.0-or-later
// A host's store: what is durably on record about the VM's disks. Holds the rules of
// store/ownership_store.h that matter here: one record, an older generation never replaces a newer one.
// Thread-safety: none.
#pragma once

#include <optional>

#include "migration/ownership.h"
#include "volume.h"

namespace ferry::sim {

struct Record {
  store::Holding holding = store::Holding::owned;
  std::uint64_t generation = 0;
  std::uint32_t session = 0;
  std::uint64_t base = 0;       // the generation that the session began with
  bool outgoing = false;
  bool created = false;         // the volumes were made for the session, or for an earlier one
  bool kept = false;            // and what was copied is kept; while it comes in: would be
  std::uint64_t digest = 0;     // of the disks at the hand-over, equal on both sides; 0: not known
  std::uint32_t tracker = 0;    // the filter that sees every write since the disks came in; 0: none
};

// Whether the volume carries the filter that sees every write since the disks came in.
inline bool follows(const Record& record, const Volume& volume) {
  return record.tracker != 0 && volume.tracker == record.tracker && volume.filter == Filter::tracking;
}

// What becomes of the record of a session that comes in and is called off: closed remain volumes that were there
// before, and those whose copy is kept; the others are removed.
inline store::Holding called_off(const Record& record) {
  return record.created && !record.kept ? store::Holding::revoked : store::Holding::given;
}

class Records {
 public:
  const std::optional<Record>& get() const { return record_; }
  bool put(const Record& record) {
    if (record_ && record_->generation > record.generation) return false;
    record_ = record;
    return true;
  }
  void lose() { record_.reset(), lost_ = true; }
  bool lost() const { return lost_; }
  // migration/ownership.h's verdict.
  migration::GrantFate fate(std::uint32_t session, std::uint64_t generation) const;

 private:
  std::optional<Record> record_;
  bool lost_ = false;
};

}  // namespace ferry::sim
