// SPDX-License-Identifier: GPL-2.0-or-later
// The ownership part of a migration, from the last round on, as a machine whose every step can be tried in
// every order: the real Source and Destination, their records, filters, guests, and up to two connections,
// with a bounded number of crashes, losses of power, broken links and failing records.
//
// What it leaves out, and why that hides no order of events: blocks (a disk is "as frozen", or written by
// one side), time (everything may take as long as it likes), several disks (they change together). What a
// daemon does at its start is one step, and so is an answer that is read from the record.
// Thread-safety: none.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "link.h"
#include "machine_probe.h"
#include "mutation.h"
#include "volume.h"

namespace ferry::sim {

inline constexpr unsigned kQueue = 5;   // messages under way in one direction of a connection

struct Wire {
  std::uint8_t asks = 0;             // opened for a question, not the control connection of the beginning
  std::uint8_t open[2] = {0, 0};     // [0] the source's side, [1] the destination's
  std::uint8_t broken = 0;           // what is said from now on is lost; each side notices in its time
  std::uint8_t queue[2][kQueue] = {};     // messages to [host], Say + 1, the next one first
  bool operator==(const Wire&) const = default;
};

enum class Finish : std::uint8_t { over, held, forwarding, forwarded, orphaned };
enum class Power : std::uint8_t { daemon_down, up, off };

struct OwnershipState {
  PackedSource source;
  PackedDestination destination;
  std::uint8_t power[2];             // Power
  std::uint8_t record[2];            // Holding + 1
  std::uint8_t filter[2];            // Filter
  std::uint8_t volume_there;         // the destination's, made for the session
  std::uint8_t guest[2];             // 0 none, else 1 + GuestState
  std::uint8_t finish;               // Finish
  std::uint8_t newest;               // whose disk was written since the freeze: 0 nobody's, else 1 + host
  std::uint8_t calls[2];             // device calls under way, a bit each
  std::uint8_t claim[2];             // record under way: Holding + 1
  std::uint8_t claim_stage[2];       // Stage
  std::uint8_t told;                 // what the hypervisor is about to say, a bit each
  std::uint8_t asking;               // 0, or the question's Say + 1
  std::uint8_t due;                  // which question an error answers
  std::uint8_t control;              // the source's control connection: 1 + wire
  std::uint8_t current;              // over which the destination answers: 1 + wire
  std::uint8_t waiting;              // wires with a revoke that the destination has not answered, a bit each
  std::uint8_t recovered;            // the source's machine is an heir
  std::uint8_t late_fence;           // mutation
  Wire wire[2];
  std::uint8_t crashes[2], power_losses, link_losses, record_failures, tricks;  // left to happen
  bool operator==(const OwnershipState&) const = default;
};
static_assert(std::has_unique_object_representations_v<OwnershipState>);

struct OwnershipBounds {
  std::uint8_t crashes = 2, power_losses = 1, link_losses = 2, record_failures = 1, tricks = 1;
};

struct OwnershipStep {
  OwnershipState state;
  const char* who;        // "a", "b", …
  const char* what;
  bool fault;             // does not count when it is asked whether the world comes to rest
  const char* broken;     // a promise that the step breaks, or nullptr
};

class OwnershipModel {
 public:
  OwnershipModel(const OwnershipBounds& bounds, Mutation mutation);
  OwnershipModel(const OwnershipModel&) = delete;
  OwnershipModel& operator=(const OwnershipModel&) = delete;

  OwnershipState initial();
  const std::vector<OwnershipStep>& successors(const OwnershipState& from);
  // Nothing is under way and both machines have ended. What is wrong with that rest, or nullptr.
  bool rests(const OwnershipState& state) const;
  const char* wrong_at_rest(const OwnershipState& state) const;

 private:
  struct SourceSide;
  struct DestinationSide;
  enum class Stage : std::uint8_t { none, asked, durable, told_early };

  // ownership_model.cpp: the machines and their ports
  void to_source(migration::SourceEvent event);
  void to_destination(migration::DestinationEvent event);
  void claim(unsigned host, store::Holding holding);
  void send(unsigned wire, unsigned from, std::uint8_t message);
  void close_all(unsigned host);
  void ended(unsigned host);
  void emit(const char* who, const char* what, bool fault = false);
  const char* judge() const;
  bool passes(unsigned host) const;
  bool owns(unsigned host) const;
  bool may_write(unsigned host) const;
  bool takes_early(unsigned host, store::Holding holding) const;
  void begin_source();
  void begin_destination();

  // ownership_steps.cpp: what may happen next
  template <typename F>
  void step(const char* who, const char* what, F change, bool fault = false);
  void device_steps();
  void source_calls();
  void destination_calls();
  void record_steps(unsigned host);
  void hypervisor_steps();
  void guest_steps(unsigned host);
  void wire_steps(unsigned wire);
  void ask_step();
  void receive_at_source(unsigned wire, std::uint8_t message);
  void receive_at_destination(unsigned wire, std::uint8_t message);
  void answer_from_record(unsigned wire, std::uint8_t message);
  void life_steps(unsigned host);
  void stop(unsigned host);
  void start_daemon(unsigned host);
  void bar(unsigned host);
  void notice(unsigned wire, unsigned side);

  const OwnershipBounds bounds_;
  const Mutation mutation_;
  OwnershipState from_{}, now_{};
  const char* broken_ = nullptr;
  std::vector<OwnershipStep> out_;
  std::shared_ptr<SourceSide> source_;
  std::shared_ptr<DestinationSide> destination_;
  PackedSource fresh_source_;
  bool rehearsing_ = false;   // the way to the last round: calls have no effect
};

}  // namespace ferry::sim
