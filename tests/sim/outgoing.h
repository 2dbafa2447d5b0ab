// SPDX-License-Identifier: GPL-2.0-or-later
// The source's end of one session: the real migration::Source between the simulated ports.
// Thread-safety: none.
#pragma once

#include <string>

#include "ledger.h"
#include "link.h"
#include "migration/source.h"
#include "source_disks.h"
#include "source_peer.h"

namespace ferry::sim {

// A SourceEvent that a Task can carry: without memory of its own.
struct Signal {
  migration::SourceEventType type;
  migration::SourceEventType instead_of = migration::SourceEventType::failed;
  bool has_error = false;
  Errc code = Errc::failed;
  const char* what = "";
  std::uint64_t sent_bytes = 0, residual_bytes = 0;
  Time took = 0;

  Signal& error(Errc c, const char* w) {
    has_error = true;
    code = c;
    what = w;
    return *this;
  }
  Signal& step(migration::SourceEventType s) {
    instead_of = s;
    return *this;
  }
  migration::SourceEvent event() const;
};

class Outgoing : public migration::Hypervisor, public migration::Clock, public Ledger::Owner {
 public:
  Outgoing(World& world, unsigned host, std::uint32_t session, std::uint64_t base, bool recovers);
  // For the first round: the filter that sees every change since the disks came in as `base`, 0 when there is none; and
  // whether the other host may keep what it has when the session is called off.
  void plan(std::uint32_t follower, bool keep);

  // The machine gets it from its loop, after `delay`.
  void post(Time delay, const Signal& signal);
  void recorded(bool went_well) override;

  // Hypervisor
  void start() override;
  void abort() override;
  void release_finish() override;
  void refuse_finish() override;
  void end_guest() override;
  // Clock
  migration::TimePoint now() const override;

  const unsigned host;
  const std::uint32_t session;
  const std::uint64_t base;
  const bool recovers;
  std::uint32_t follower = 0;
  bool keep = false;

 private:
  void handle(const Signal& signal);

  World& world_;

 public:
  SourceDisks disks;
  SourcePeer peer;
  Ledger ledger;
  migration::Source machine;

 private:
  bool closed_ = false;
};

}  // namespace ferry::sim
