// SPDX-License-Identifier: GPL-2.0-or-later
#include "ownership_model.h"

#include <memory>
#include <utility>

#include "guest.h"
#include "ownership_names.h"

namespace ferry::sim {

using migration::MachineProbe;
using store::Holding;
using ST = migration::SourceEventType;
using DT = migration::DestinationEventType;

// The source's machine and its ports: a call marks in the state what is under way.
struct OwnershipModel::SourceSide : migration::SourceDevice, migration::Ledger, migration::Clock {
  struct Link : migration::PeerLink {
    explicit Link(OwnershipModel& model) : m(model) {}
    void say(Say what, ST answers) {
      m.now_.due = static_cast<std::uint8_t>(answers);
      if (m.now_.control) m.send(m.now_.control - 1, 0, coded(what));
    }
    void ask(Say what) { m.now_.asking = coded(what); }
    void connect() override {}
    void prepare() override {}
    void close_gate() override {}
    void ask_ready() override { say(Say::ready_asked, ST::peer_ready); }
    void grant() override { say(Say::grant, ST::peer_opened); }
    void revoke() override {
      ask(Say::revoke);
      if (m.mutation_ == Mutation::unfence_without_revoke) m.now_.told |= kRevokedForged;
    }
    void ask_return() override {
      ask(Say::give_back);
      if (m.mutation_ != Mutation::resume_before_reclaim) return;
      m.now_.filter[0] = raw(Filter::tracking);
      if (m.now_.guest[0]) m.now_.guest[0] = kRunning;
    }
    void ask_digests() override { say(Say::digests_asked, ST::peer_digests); }
    void finish() override { say(Say::finish, ST::peer_finished); }
    void abort() override { say(Say::abort, ST::peer_aborted); }
    OwnershipModel& m;
  };
  struct Guest : migration::Hypervisor {
    explicit Guest(OwnershipModel& model) : m(model) {}
    bool runs() const { return m.now_.recovered || m.now_.finish != raw(Finish::over); }
    void start() override {}
    void abort() override { refuse_finish(); }
    void release_finish() override {
      if (m.now_.recovered)
        m.now_.told |= kNotStarted;
      else if (m.now_.finish == raw(Finish::held))
        m.now_.finish = raw(Finish::forwarding);
    }
    void refuse_finish() override {
      if (!runs()) return;
      m.now_.finish = raw(Finish::over);
      if (m.now_.guest[0]) m.now_.guest[0] = kRunning;
      m.now_.told |= kDoneBadly;
    }
    void end_guest() override {
      m.now_.finish = raw(Finish::over);
      m.now_.guest[0] = 0;
      m.now_.told |= kDoneBadly;
    }
    OwnershipModel& m;
  };

  explicit SourceSide(OwnershipModel& model)
      : m(model),
        link(model),
        guest(model),
        machine({*this, *this, link, guest, *this, [](migration::Duration, migration::SourceEventType) {}, [] { return true; },
                 [](const std::string&) {}},
                {}) {}

  void call(std::uint8_t bit) {
    if (!m.rehearsing_) m.now_.calls[0] |= bit;
  }
  void attach() override {}
  void copy_round(migration::RoundKind) override {}
  void stop_copy() override {}
  void freeze() override {}
  void thaw() override { call(kThaw); }
  void fence() override { call(kFence); }
  void digest() override { call(kDigest); }
  void detach() override { call(kDetach); }
  void leave_fenced() override { call(kLeave); }
  void record(Holding holding) override { m.claim(0, holding); }
  migration::TimePoint now() const override { return {}; }

  OwnershipModel& m;
  Link link;
  Guest guest;
  migration::Source machine;
};

struct OwnershipModel::DestinationSide : migration::DestinationDevice, migration::SourceLink, migration::Ledger {
  explicit DestinationSide(OwnershipModel& model)
      : m(model), machine({*this, *this, *this, [](migration::Duration) {}, [](const std::string&) {}}) {}

  void call(std::uint8_t bit) {
    if (!m.rehearsing_) m.now_.calls[1] |= bit;
  }
  void prepare() override {}
  void cut_short() override {}
  void close_gate() override {}
  void flush() override { call(kFlush); }
  void open_gate() override { call(kOpen); }
  void verify() override { call(kVerify); }
  void yield() override { call(kYield); }
  void finish() override { call(kFinish); }
  void discard() override { call(kDiscard); }
  void answer(std::string_view what) override {
    for (const Say say :
         {Say::ready, Say::opened, Say::revoked, Say::returned, Say::digests, Say::finished, Say::aborted})
      if (what == say_name(say)) reply(coded(say), say == Say::opened || say == Say::revoked || say == Say::returned);
  }
  void refuse(const Error& error) override { reply(error.code == Errc::busy ? kBusy : coded(Say::error), true); }
  void reply(std::uint8_t message, bool answers) {
    if (m.rehearsing_ || !m.now_.current) return;
    if (answers) m.now_.waiting &= static_cast<std::uint8_t>(~(1u << (m.now_.current - 1)));
    m.send(m.now_.current - 1, 1, message);
  }
  void record(Holding holding) override { m.claim(1, holding); }

  OwnershipModel& m;
  migration::Destination machine;
};

OwnershipModel::OwnershipModel(const OwnershipBounds& bounds, Mutation mutation)
    : bounds_(bounds), mutation_(mutation), source_(std::make_shared<SourceSide>(*this)),
      destination_(std::make_shared<DestinationSide>(*this)) {
  fresh_source_ = MachineProbe::save(source_->machine);
}

// The way to the last round, as the unit tests walk it.
void OwnershipModel::begin_source() {
  auto& machine = source_->machine;
  migration::SourceEvent round{ST::round_done};
  round.round = {1 << 20, std::chrono::seconds(1), 0};
  for (const ST type : {ST::start, ST::connected, ST::peer_prepared, ST::recorded, ST::attached})
    machine.handle({type});
  machine.handle(round);
  machine.handle(round);
  machine.handle({ST::guest_paused});
  machine.handle({ST::finish_seen});
  machine.handle(round);
  machine.handle({ST::frozen});
  machine.handle(round);
}

void OwnershipModel::begin_destination() {
  for (const DT type : {DT::prepare, DT::recorded, DT::prepared, DT::close_gate}) destination_->machine.handle({type});
}

OwnershipState OwnershipModel::initial() {
  now_ = {};
  rehearsing_ = true;
  MachineProbe::load(source_->machine, fresh_source_);
  begin_source();
  begin_destination();
  rehearsing_ = false;
  now_ = {};
  now_.source = MachineProbe::save(source_->machine);
  now_.destination = MachineProbe::save(destination_->machine);
  now_.power[0] = now_.power[1] = raw(Power::up);
  now_.record[0] = coded(Holding::moving);
  now_.record[1] = coded(Holding::receiving);
  now_.filter[0] = raw(Filter::frozen);
  now_.filter[1] = raw(Filter::gated);
  now_.volume_there = 1;
  now_.guest[0] = kPaused;
  now_.guest[1] = kIncoming;
  now_.finish = raw(Finish::held);
  now_.due = static_cast<std::uint8_t>(ST::peer_ready);
  now_.control = now_.current = 1;
  now_.wire[0].open[0] = now_.wire[0].open[1] = 1;
  now_.wire[0].queue[1][0] = coded(Say::ready_asked);
  now_.crashes[0] = now_.crashes[1] = bounds_.crashes;
  now_.power_losses = bounds_.power_losses;
  now_.link_losses = bounds_.link_losses;
  now_.record_failures = bounds_.record_failures;
  now_.tricks = bounds_.tricks;
  return now_;
}

void OwnershipModel::to_source(migration::SourceEvent event) {
  if (!now_.source.present) return;
  auto& machine = source_->machine;
  MachineProbe::load(machine, now_.source);
  const bool was_over = machine.ended();
  machine.handle(event);
  now_.source = MachineProbe::save(machine);
  if (machine.ended() && !was_over) ended(0);
}

void OwnershipModel::to_destination(migration::DestinationEvent event) {
  if (!now_.destination.present) return;
  auto& machine = destination_->machine;
  MachineProbe::load(machine, now_.destination);
  const bool was_over = machine.ended();
  machine.handle(event);
  now_.destination = MachineProbe::save(machine);
  if (machine.ended() && !was_over) ended(1);
}

// The daemon closes what the session had, and a question without an answer is answered from the record.
void OwnershipModel::ended(unsigned host) {
  if (host == 0) {
    now_.asking = 0;
    return close_all(0);
  }
  for (unsigned wire = 0; wire < 2; ++wire)
    if (now_.waiting >> wire & 1) answer_from_record(wire, coded(Say::revoke));
  now_.waiting = 0;
}

bool OwnershipModel::takes_early(unsigned host, Holding holding) const {
  return (mutation_ == Mutation::open_before_record && host == 1 && holding == Holding::owned) ||
         (mutation_ == Mutation::grant_before_record && host == 0 && holding == Holding::granting) ||
         (mutation_ == Mutation::revoked_without_record && host == 1 && holding == Holding::revoked);
}

void OwnershipModel::claim(unsigned host, Holding holding) {
  if (rehearsing_) return;
  now_.claim[host] = coded(holding);
  now_.claim_stage[host] = static_cast<std::uint8_t>(Stage::asked);
}

void OwnershipModel::send(unsigned wire, unsigned from, std::uint8_t message) {
  Wire& w = now_.wire[wire];
  if (rehearsing_ || !w.open[from] || w.broken || !w.open[1 - from]) return;
  for (auto& place : w.queue[1 - from]) {
    if (place != 0) continue;
    place = message;
    return;
  }
  broken_ = "more messages are under way than anybody has thought of";
}

void OwnershipModel::close_all(unsigned host) {
  for (unsigned n = 0; n < 2; ++n) {
    Wire& w = now_.wire[n];
    if (!w.open[host]) continue;
    w.open[host] = 0;
    w.broken = 1;  // what was said before still arrives, or not
    for (auto& place : w.queue[host]) place = 0;
    if (!w.open[1 - host]) w = {};
  }
  (host == 0 ? now_.control : now_.current) = 0;
  if (host == 1) now_.waiting = 0;
}

bool OwnershipModel::passes(unsigned host) const {
  const auto filter = static_cast<Filter>(now_.filter[host]);
  return (filter == Filter::none || filter == Filter::tracking) && (host == 0 || now_.volume_there);
}

bool OwnershipModel::owns(unsigned host) const {
  return now_.record[host] == coded(Holding::owned) || now_.record[host] == coded(Holding::moving);
}

// A guest that runs here, or may be started here, can have a write acknowledged.
bool OwnershipModel::may_write(unsigned host) const {
  if (now_.power[host] == raw(Power::off) || !passes(host)) return false;
  return now_.guest[host] == kRunning || (now_.guest[host] == 0 && owns(host));
}

const char* OwnershipModel::judge() const {
  if (broken_) return broken_;
  if (may_write(0) && may_write(1)) return "two writers: on both hosts a guest can have a write acknowledged";
  return nullptr;
}

void OwnershipModel::emit(const char* who, const char* what, bool fault) {
  // A connection that both sides have left is no part of the state any more.
  for (auto& wire : now_.wire)
    if (!wire.open[0] && !wire.open[1]) wire = {};
  out_.push_back({now_, who, what, fault, judge()});
}

bool OwnershipModel::rests(const OwnershipState& state) const {
  if (state.power[0] != raw(Power::up) || state.power[1] != raw(Power::up)) return false;
  using migration::DestinationState;
  using migration::SourceState;
  const auto source = static_cast<SourceState>(state.source.state);
  const bool source_over = !state.source.present || source == SourceState::done || source == SourceState::failed ||
                           source == SourceState::aborted;
  const auto destination = static_cast<DestinationState>(state.destination.state);
  const bool destination_over = !state.destination.present || destination == DestinationState::finished ||
                                destination == DestinationState::failed;
  return source_over && destination_over && !state.asking && !state.claim[0] && !state.claim[1] && !state.calls[0] &&
         !state.calls[1] && !state.told && state.finish == raw(Finish::over) && state.guest[1] != kIncoming &&
         !state.late_fence;
}

const char* OwnershipModel::wrong_at_rest(const OwnershipState& state) const {
  const auto is = [&](unsigned host, Holding holding) { return state.record[host] == coded(holding); };
  const bool here = is(0, Holding::owned) || is(0, Holding::moving);
  const bool there = is(1, Holding::owned);
  if (here && there) return "at the end both hosts take themselves for the owner";
  if (!here && !there) return "at the end no host takes itself for the owner";
  const unsigned owner = here ? 0 : 1;
  if (state.newest == 2 - owner) return "lost write: the newest writes are on the host that does not own the disks";
  if (there && !state.volume_there) return "at the end the owner's volumes are gone";
  if (here && state.filter[0] != raw(Filter::none))
    return "left behind: the source owns the disks, and its filter is in";
  if (there && state.filter[1] != raw(Filter::none))
    return "left behind: the destination owns the disks, and its filter is in";
  if (there && state.filter[0] != raw(Filter::fenced)) return "the old volumes on the source are not fenced";
  if (here && state.volume_there) return "left behind: the volume that was made on the destination";
  if (state.guest[1 - owner]) return "left behind: a copy of the guest on the host that does not own the disks";
  return nullptr;
}

}  // namespace ferry::sim
