// SPDX-License-Identifier: GPL-2.0-or-later
// A world for tests of Source: it answers at once, logs what was asked, and fails where a test wants it to.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "migration/source.h"

namespace ferry::migration::source_rig {

using T = SourceEventType;
using S = SourceState;

// Plays clock, disks, peer and hypervisor. Each call is logged by name and answered by an event that the
// test delivers later; `fail_at` makes the n-th call fail, `inject` delivers an event before the n-th answer.
class World : public Clock, public SourceDevice, public PeerLink, public Ledger {
 public:
  TimePoint now() const override { return now_; }

  void attach() override { call("attach", T::attached); }
  void copy_round(RoundKind kind) override {
    SourceEvent done{T::round_done};
    done.round = {kind == RoundKind::full ? 1u << 30 : dirty_bytes, std::chrono::seconds(1), dirty_bytes};
    call(kind == RoundKind::full ? "copy_full" : "copy_dirty", done);
  }
  void stop_copy() override {
    log.push_back("stop_copy");
    for (auto& event : queue)
      if (event.type == T::round_done)
        event = failure_of(T::round_done, make_error(Errc::aborted, "stopped"));
  }
  void freeze() override { call("freeze", T::frozen); }
  void thaw() override { call("thaw", T::thawed); }
  void fence() override { call("fence", T::fenced); }
  void digest() override { call("digest", T::digests_taken); }
  void detach() override { call("detach", T::detached); }
  void leave_fenced() override { call("leave_fenced", T::detached); }

  void connect() override { call("connect", T::connected); }
  void prepare() override { call("prepare", T::peer_prepared); }
  void close_gate() override { log.push_back("close_gate"); }
  void ask_ready() override { call("ask_ready", T::peer_ready); }
  void grant() override { call("grant", T::peer_opened); }
  void revoke() override { ask("revoke", grant_arrived ? T::peer_opened : T::peer_revoked); }
  void ask_return() override { ask("ask_return", guest_runs_there ? T::return_refused : T::peer_returned); }
  void record(Holding holding) override { call("record_" + std::string(store::holding_name(holding)), T::recorded); }
  void ask_digests() override { call("ask_digests", T::peer_digests); }
  void finish() override { call("finish", T::peer_finished); }
  void abort() override { call("abort_peer", T::peer_aborted); }

  // Asked until answered: never fails.
  void ask(const std::string& name, T answer) {
    log.push_back(name);
    queue.push_back({answer});
  }
  void call(const std::string& name, T answer) { call(name, SourceEvent{answer}); }
  void call(const std::string& name, SourceEvent answer) {
    log.push_back(name);
    if (silent.contains(name)) return;
    if (static_cast<int>(log.size()) == fail_at)
      queue.push_back(failure_of(answer.type, make_error(Errc::io, name + " failed")));
    else
      queue.push_back(std::move(answer));
  }
  bool called(const std::string& name) const { return index(name) >= 0; }
  int index(const std::string& name) const {
    auto at = std::find(log.begin(), log.end(), name);
    return at == log.end() ? -1 : static_cast<int>(at - log.begin());
  }

  std::uint64_t dirty_bytes = 4096;
  bool grant_arrived = true;      // before the link broke
  bool guest_runs_there = false;
  std::vector<std::string> log;
  std::deque<SourceEvent> queue;
  int fail_at = -1;
  std::set<std::string> silent;   // calls that are never answered
  TimePoint now_{};
};

class FakeHypervisor : public Hypervisor {
 public:
  explicit FakeHypervisor(World& world) : world_(world) {}
  void start() override {
    world_.log.push_back("hyp_start");
    world_.queue.push_back({T::guest_paused});
    world_.queue.push_back({T::finish_seen});
  }
  void abort() override {
    world_.log.push_back("hyp_abort");
    std::erase_if(world_.queue, [](const SourceEvent& e) {
      return e.type == T::guest_paused || e.type == T::finish_seen;
    });
    done(make_error(Errc::aborted, "cancelled"));
  }
  void release_finish() override {
    world_.log.push_back("release_finish");
    if (starts_there) return done(std::nullopt);
    world_.queue.push_back({T::guest_not_started, make_error(Errc::failed, "no memory")});
  }
  void end_guest() override {
    world_.log.push_back("end_guest");
    done_ = false;  // also when the migration has ended before
    done(make_error(Errc::failed, "destroyed"));
  }
  bool starts_there = true;
  void refuse_finish() override {
    world_.log.push_back("refuse_finish");
    done(make_error(Errc::failed, "finish refused"));
  }
  void done(std::optional<Error> error) {
    if (std::exchange(done_, true)) return;
    world_.queue.push_back({T::hypervisor_done, std::move(error)});
  }

 private:
  World& world_;
  bool done_ = false;
};

struct Rig {
  World world;
  FakeHypervisor hypervisor{world};
  bool digests_equal = true;
  std::vector<std::string> trace;
  std::vector<std::pair<T, Duration>> timers;
  Source source{{world, world, world, hypervisor, world,
                 [this](Duration after, T due) {
                   if (due == T::pace_timer) return world.queue.push_back({due});
                   timers.emplace_back(due, after);  // a test lets them be over
                 },
                 [this] { return digests_equal; },
                 [this](const std::string& line) { trace.push_back(line); }},
                {}};
  std::set<S> seen;

  // Delivers answers until nothing is left; puts `extra` before the n-th one.
  void go(int inject_before = -1, std::optional<SourceEvent> extra = std::nullopt) {
    source.handle({T::start});
    drain(inject_before, std::move(extra));
  }
  void drain(int inject_before = -1, std::optional<SourceEvent> extra = std::nullopt) {
    for (int n = 0; !world.queue.empty(); ++n) {
      ASSERT_LT(n, 1000) << "the machine never comes to an end";
      if (n == inject_before && extra) {
        if (extra->type == T::link_lost) drop_peer_answers();
        source.handle(*extra);
        note();
        if (world.queue.empty()) break;
      }
      SourceEvent event = world.queue.front();
      world.queue.pop_front();
      world.now_ += std::chrono::milliseconds(1);
      // Marks in the log from where on this side may let the guest write again.
      if (event.type == T::peer_revoked || event.type == T::peer_returned) world.log.push_back("(free)");
      if (event.type == T::recorded && source.state() == S::reclaiming) world.log.push_back("(reclaimed)");
      source.handle(event);
      note();
    }
  }
  void drop_peer_answers() {
    const bool asking = world.called("revoke");  // that outlives a link
    for (auto& event : world.queue)
      if (event.type == T::connected) event = failure_of(T::connected, make_error(Errc::peer_unreachable, "cut"));
    std::erase_if(world.queue, [asking](const SourceEvent& e) {
      if (e.type == T::peer_opened && asking) return false;
      return e.type == T::peer_prepared || e.type == T::peer_ready ||
             e.type == T::peer_opened || e.type == T::peer_digests || e.type == T::peer_finished ||
             e.type == T::peer_aborted;
    });
  }
  void note() { seen.insert(source.state()); }

  // What must hold whatever happened.
  void check_invariants() {
    const auto& w = world;
    std::string all;
    for (const auto& name : w.log) all += name + " ";
    SCOPED_TRACE(all);
    if (source.state() == S::reclaiming) {  // its record failed: fenced, and says so
      EXPECT_FALSE(w.called("thaw"));
      EXPECT_EQ(source.error()->code, Errc::owner_unknown);
      return;
    }
    EXPECT_TRUE(source.ended()) << "stuck in " << state_name(source.state());
    if (w.called("grant")) {
      EXPECT_LT(w.index("fence"), w.index("record_granting"));
      EXPECT_LT(w.index("record_granting"), w.index("grant"));
      EXPECT_LT(w.index("ask_ready"), w.index("fence"));
      for (std::size_t i = w.index("grant"); i < w.log.size() && w.log[i] != "(reclaimed)"; ++i) {
        EXPECT_NE(w.log[i], "thaw") << "writes let through after the grant";
        EXPECT_NE(w.log[i], "refuse_finish") << "the guest goes on while the peer may own its disks";
        EXPECT_NE(w.log[i], "detach") << "the fence taken off after the grant";
        EXPECT_NE(w.log[i], "abort_peer") << "the peer told to discard what it owns";
      }
      if (w.called("record_owned")) {
        EXPECT_LT(w.index("(free)"), w.index("record_owned"));
      }
    } else {
      EXPECT_NE(source.state(), S::done);
      EXPECT_NE(source.state(), S::in_doubt);
      EXPECT_FALSE(w.called("release_finish"));
      if (w.called("freeze") && w.called("thaw") && w.called("refuse_finish")) {
        EXPECT_LT(w.index("thaw"), w.index("refuse_finish")) << "the guest would run into a frozen disk";
      }
    }
    if (w.called("release_finish")) {
      EXPECT_LT(w.index("grant"), w.index("release_finish"));
    }
  }
};

}  // namespace ferry::migration::source_rig
