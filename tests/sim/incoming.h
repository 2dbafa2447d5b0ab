// SPDX-License-Identifier: GPL-2.0-or-later
// The destination's end of one session: the real migration::Destination between the simulated ports. The
// source may speak to it over one connection after the other; the newest counts.
// Thread-safety: none.
#pragma once

#include <vector>

#include "destination_disks.h"
#include "ledger.h"
#include "link.h"
#include "migration/destination.h"

namespace ferry::sim {

class Incoming : public migration::SourceLink, public Ledger::Owner {
 public:
  struct Signal {
    migration::DestinationEventType type;
    bool has_error = false;
    Errc code = Errc::failed;
    const char* what = "";
  };

  Incoming(World& world, unsigned host, const Message& prepare, std::uint32_t session, std::uint32_t connection);

  void post(const Signal& signal, Time delay = 0);
  void recorded(bool went_well) override;
  void answer(std::string_view what) override;
  void refuse(const Error& error) override;

  // What the source says over its control connection, or over a new one with a question.
  void receive(std::uint32_t connection, const Message& message);
  void connection_lost(std::uint32_t connection);

  const unsigned host;
  const std::uint32_t session;
  const std::uint64_t base;

 private:
  void handle(const Signal& signal);
  void ended();

  World& world_;
  std::uint32_t connection_;
  bool closed_ = false;
  std::vector<std::uint32_t> questions_;   // connections with a revoke that has no answer yet

 public:
  DestinationDisks disks;
  Ledger ledger;
  migration::Destination machine;
};

}  // namespace ferry::sim
