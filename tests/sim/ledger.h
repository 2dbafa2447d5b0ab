// SPDX-License-Identifier: GPL-2.0-or-later
// The Ledger port of one session: makes claims durable in the host's records, in one step, at a moment
// between the call and its answer. A crash before that moment loses the claim, one after it does not.
// Thread-safety: none.
#pragma once

#include <cstdint>
#include <functional>

#include "migration/ports.h"
#include "records.h"
#include "schedule.h"

namespace ferry::sim {

struct World;

class Ledger : public migration::Ledger {
 public:
  // What to do with the answer.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void recorded(bool went_well) = 0;
  };
  struct Session {
    std::uint32_t id;
    std::uint64_t base;
    bool outgoing;
    bool granted;                 // an earlier daemon has put the grant on record
    bool keep = false;            // destination: what is copied may be kept
    std::function<bool()> keeps;  // and whether it is, asked when the session is called off
  };
  Ledger(World& world, unsigned host, Session session, Owner& owner);

  void record(store::Holding holding) override;
  // Both hosts' digests were equal.
  void set_verified(std::uint64_t digest) { digest_ = digest; }
  // Source: the filter that was there before the session, until the session takes it over.
  void set_tracker(std::uint32_t tracker) { tracker_ = tracker; }

 private:
  Record claim(store::Holding holding);
  bool answers_early(store::Holding holding) const;

  World& world_;
  Owner& owner_;
  const unsigned host_;
  const Session session_;
  bool granted_;
  bool created_ = false;
  std::uint64_t digest_ = 0;
  std::uint32_t tracker_ = 0;
  bool old_copy_ = false;        // the volumes here hold an older generation
};

}  // namespace ferry::sim
