// SPDX-License-Identifier: GPL-2.0-or-later
// The Ledger port of one session: makes claims durable in the host's records, in one step, at a moment
// between the call and its answer. A crash before that moment loses the claim, one after it does not.
// Thread-safety: none.
#pragma once

#include <cstdint>

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
  // `granted`: an earlier daemon has put the grant on record.
  Ledger(World& world, unsigned host, std::uint32_t session, std::uint64_t base, bool outgoing, bool granted,
         Owner& owner);

  void record(store::Holding holding) override;

 private:
  Record claim(store::Holding holding);
  bool answers_early(store::Holding holding) const;

  World& world_;
  Owner& owner_;
  const unsigned host_;
  const std::uint32_t session_;
  const std::uint64_t base_;
  const bool outgoing_;
  bool granted_;
  bool created_ = false;
  bool old_copy_ = false;        // the volumes here hold an older generation
};

}  // namespace ferry::sim
