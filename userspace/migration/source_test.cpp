// SPDX-License-Identifier: GPL-2.0-or-later
// The source's machine against a fake world that answers at once, and against the same world with one
// fault put at every place where one can be.
#include "migration/source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <set>
#include <vector>

namespace ferry::migration {
namespace {

using T = SourceEventType;
using S = SourceState;

// Plays clock, disks, peer and hypervisor. Each call is logged by name and answered by an event that the
// test delivers later; `fail_at` makes the n-th call fail, `inject` delivers an event before the n-th answer.
class World : public Clock, public SourceDevice, public PeerLink {
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
  void ask_digests() override { call("ask_digests", T::peer_digests); }
  void finish() override { call("finish", T::peer_finished); }
  void abort() override { call("abort_peer", T::peer_aborted); }

  void call(const std::string& name, T answer) { call(name, SourceEvent{answer}); }
  void call(const std::string& name, SourceEvent answer) {
    log.push_back(name);
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
  std::vector<std::string> log;
  std::deque<SourceEvent> queue;
  int fail_at = -1;
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
    done(std::nullopt);
  }
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
  Source source{{world, world, world, hypervisor,
                 [this](Duration) { world.queue.push_back({T::pace_timer}); },
                 [this] { return digests_equal; },
                 [this](const std::string& line) { trace.push_back(line); }},
                {}};
  std::set<S> seen;

  // Delivers answers until nothing is left; puts `extra` before the n-th one.
  void go(int inject_before = -1, std::optional<SourceEvent> extra = std::nullopt) {
    source.handle({T::start});
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
      source.handle(event);
      note();
    }
  }
  void drop_peer_answers() {
    std::erase_if(world.queue, [](const SourceEvent& e) {
      return e.type == T::connected || e.type == T::peer_prepared || e.type == T::peer_ready ||
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
    EXPECT_TRUE(source.ended()) << "stuck in " << state_name(source.state());
    if (w.called("grant")) {
      EXPECT_LT(w.index("fence"), w.index("grant"));
      EXPECT_LT(w.index("ask_ready"), w.index("fence"));
      for (std::size_t i = w.index("grant"); i < w.log.size(); ++i) {
        EXPECT_NE(w.log[i], "thaw") << "writes let through after the grant";
        EXPECT_NE(w.log[i], "detach") << "the fence taken off after the grant";
        EXPECT_NE(w.log[i], "abort_peer") << "the peer told to discard what it owns";
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

TEST(Source, MovesAGuest) {
  Rig run;
  run.go();
  run.check_invariants();
  EXPECT_EQ(run.source.state(), S::done);
  EXPECT_FALSE(run.source.error());
  const auto& w = run.world;
  EXPECT_LT(w.index("close_gate"), w.index("freeze"));
  EXPECT_LT(w.index("freeze"), w.index("ask_ready"));
  EXPECT_TRUE(w.called("leave_fenced"));
  EXPECT_TRUE(w.called("finish"));
}

TEST(Source, CopiesOnceAfterThePauseAndOnceAfterTheFreeze) {
  Rig run;
  run.go();
  const auto& log = run.world.log;
  const auto freeze = std::find(log.begin(), log.end(), "freeze");
  ASSERT_NE(freeze, log.end());
  EXPECT_EQ(*(freeze + 1), "copy_dirty");
  const auto gate = std::find(log.begin(), log.end(), "close_gate");
  EXPECT_GE(std::count(gate, freeze, "copy_dirty"), 1);
}

// Every call of a good run fails once.
TEST(Source, EndsCleanlyWhicheverStepFails) {
  Rig good;
  good.go();
  const int calls = static_cast<int>(good.world.log.size());
  for (int n = 1; n <= calls; ++n) {
    Rig run;
    run.world.fail_at = n;
    run.go();
    SCOPED_TRACE("call " + std::to_string(n) + " (" + good.world.log[n - 1] + ") fails");
    run.check_invariants();
  }
}

// The link breaks, the admin aborts, the hypervisor fails: before every single answer.
TEST(Source, EndsCleanlyWhateverComesBetween) {
  const std::vector<SourceEvent> extras{
      {T::link_lost, make_error(Errc::peer_unreachable, "cut")},
      {T::abort_requested},
      {T::hypervisor_done, make_error(Errc::failed, "qemu died")},
  };
  for (const auto& extra : extras) {
    for (int n = 0; n < 40; ++n) {
      Rig run;
      run.go(n, extra);
      SCOPED_TRACE(std::string(event_name(extra.type)) + " before answer " + std::to_string(n));
      if (extra.type == T::hypervisor_done && !run.world.called("hyp_start")) continue;
      run.check_invariants();
      if (run.source.state() == S::aborted) {
        EXPECT_EQ(run.source.error()->code, Errc::aborted);
        EXPECT_TRUE(!run.world.called("attach") || run.world.called("detach"));
      }
    }
  }
}

// Two faults: a step fails and the link breaks while that is being cleaned up.
TEST(Source, EndsCleanlyWithTwoFaults) {
  for (int n = 1; n < 30; ++n) {
    for (int m = 0; m < 40; ++m) {
      Rig run;
      run.world.fail_at = n;
      run.go(m, SourceEvent{T::link_lost, make_error(Errc::peer_unreachable, "cut")});
      SCOPED_TRACE("call " + std::to_string(n) + " fails, link lost before answer " + std::to_string(m));
      run.check_invariants();
    }
  }
}

TEST(Source, AbortInPrecopyTakesEverythingBack) {
  Rig run;
  run.go(3, SourceEvent{T::abort_requested});
  EXPECT_EQ(run.source.state(), S::aborted);
  EXPECT_TRUE(run.world.called("stop_copy"));
  EXPECT_TRUE(run.world.called("detach"));
  EXPECT_TRUE(run.world.called("abort_peer"));
}

TEST(Source, SaysWhenTheDigestsDiffer) {
  Rig run;
  run.digests_equal = false;
  run.go();
  EXPECT_EQ(run.source.state(), S::failed);
  EXPECT_EQ(run.source.error()->code, Errc::verify_mismatch);
  EXPECT_FALSE(run.world.called("detach"));
}

TEST(Source, LostAnswerToTheGrantIsInDoubt) {
  Rig run;
  Rig good;
  good.go();
  // Deliver everything up to the grant's answer, then cut the link.
  for (int n = 0; n < 40; ++n) {
    Rig attempt;
    attempt.go(n, SourceEvent{T::link_lost, make_error(Errc::peer_unreachable, "cut")});
    if (attempt.world.called("grant") && attempt.source.state() == S::in_doubt) {
      EXPECT_EQ(attempt.source.error()->code, Errc::owner_unknown);
      return;
    }
  }
  FAIL() << "no run was cut between grant and answer";
}

TEST(Convergence, SwitchesOverWhenTheRestFits) {
  Convergence c({std::chrono::milliseconds(300), 0, 6});
  EXPECT_EQ(c.observe({100 << 20, std::chrono::seconds(1), 50 << 20}), Verdict::another_round);
  EXPECT_EQ(c.observe({50 << 20, std::chrono::milliseconds(500), 20 << 20}), Verdict::switch_over);
}

TEST(Convergence, GivesUpOnAGuestThatIsTooFast) {
  Convergence c({std::chrono::milliseconds(300), 0, 6});
  Verdict verdict = Verdict::another_round;
  int rounds = 0;
  while (verdict == Verdict::another_round && ++rounds < 50)
    verdict = c.observe({100 << 20, std::chrono::seconds(1), 200 << 20});
  EXPECT_EQ(verdict, Verdict::give_up);
  EXPECT_EQ(rounds, 7);
}

TEST(Convergence, StallWithinTheAllowanceStillSwitches) {
  Convergence c({std::chrono::milliseconds(300), 0, 6});
  Verdict verdict = Verdict::another_round;
  for (int n = 0; n < 50 && verdict == Verdict::another_round; ++n)
    verdict = c.observe({100 << 20, std::chrono::seconds(1), 60 << 20});
  EXPECT_EQ(verdict, Verdict::switch_over);
}

TEST(Convergence, SmallLateRoundsDoNotRuinTheRate) {
  Convergence c({std::chrono::milliseconds(300), 0, 6});
  (void)c.observe({100 << 20, std::chrono::seconds(1), 80 << 20});
  const double before = c.rate();
  (void)c.observe({4096, std::chrono::milliseconds(50), 80 << 20});
  EXPECT_GE(c.rate(), before / 2);
}

}  // namespace
}  // namespace ferry::migration
