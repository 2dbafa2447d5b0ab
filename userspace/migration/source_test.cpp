// SPDX-License-Identifier: GPL-2.0-or-later
// The source's machine against a fake world that answers at once, and against the same world with one
// fault put at every place where one can be.
#include "migration/source_test_rig.h"

namespace ferry::migration {
namespace {

using source_rig::Rig;
using source_rig::S;
using source_rig::T;

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

// The destination's daemon is stopped while it flushes, or its disk is: the guest must not wait for it.
TEST(Source, LetsTheGuestGoOnWhenTheDestinationHangs) {
  for (const T why : {T::standstill_over, T::abort_requested}) {
    SCOPED_TRACE(event_name(why));
    Rig run;
    run.world.silent = {"ask_ready", "abort_peer"};
    run.go();
    ASSERT_EQ(run.source.state(), S::awaiting_ready);
    run.source.handle({why});
    run.drain();
    EXPECT_TRUE(run.world.called("thaw"));
    EXPECT_TRUE(run.world.called("refuse_finish"));
    EXPECT_TRUE(run.world.called("detach"));
    EXPECT_EQ(run.source.state(), S::rolling_back) << "the peer has its time to answer";
    run.source.handle({T::peer_ready});  // too late to mean anything
    run.source.handle({T::patience_over});
    run.check_invariants();
    EXPECT_FALSE(run.world.called("fence"));
    EXPECT_EQ(run.source.error()->code, why == T::abort_requested ? Errc::aborted : Errc::timeout);
  }
}

TEST(Source, CanBeAbortedWhileThePeerHangsOverItsPreparation) {
  Rig run;
  run.world.silent = {"prepare"};
  run.go();
  ASSERT_EQ(run.source.state(), S::preparing);
  run.source.handle({T::abort_requested});
  run.drain();
  EXPECT_EQ(run.source.state(), S::aborted);
  EXPECT_TRUE(run.world.called("abort_peer"));
}

// Granted, nothing but the peer's word counts, however long it takes.
TEST(Source, GivesNoTimeLimitOnceItHasGranted) {
  Rig run;
  run.world.silent = {"grant"};
  run.go();
  ASSERT_EQ(run.source.state(), S::granting);
  run.source.handle({T::standstill_over});
  run.drain();
  EXPECT_EQ(run.source.state(), S::granting);
  EXPECT_FALSE(run.world.called("thaw"));
}

TEST(Source, AbortInPrecopyTakesEverythingBack) {
  Rig run;
  run.go(4, SourceEvent{T::abort_requested});
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

// Delivers everything up to the grant's answer, then cuts the link.
void cut_after_grant(Rig& run) {
  int answers = 0;
  while (true) {  // the number of answers before the grant's is the same in every good run
    Rig attempt;
    attempt.go(answers, SourceEvent{T::shut_down});
    if (attempt.seen.contains(S::granting) && !attempt.seen.contains(S::completing)) break;
    ASSERT_LT(++answers, 60);
  }
  run.go(answers, SourceEvent{T::link_lost, make_error(Errc::peer_unreachable, "cut")});
  ASSERT_TRUE(run.world.called("grant"));
  ASSERT_TRUE(run.world.called("revoke"));
}

TEST(Source, LostGrantIsRevokedAndTheGuestGoesOnHere) {
  Rig run;
  run.world.grant_arrived = false;
  cut_after_grant(run);
  run.check_invariants();
  EXPECT_EQ(run.source.state(), S::failed);
  EXPECT_EQ(run.source.owner(), SourceOwner::source);
  EXPECT_EQ(run.source.error()->code, Errc::peer_unreachable);
  EXPECT_TRUE(run.world.called("refuse_finish"));
}

TEST(Source, LostAnswerToTheGrantIsAskedFor) {
  Rig run;
  cut_after_grant(run);
  run.check_invariants();
  EXPECT_EQ(run.source.state(), S::done);
  EXPECT_EQ(run.source.owner(), SourceOwner::destination);
}

// Delivers the answers of a good run until it verifies; the calls of `silent` have no answer by then.
void bring_to_verifying(Rig& run, std::set<std::string> silent) {
  run.world.silent = std::move(silent);
  run.go();
  ASSERT_EQ(run.source.state(), S::verifying);
  ASSERT_FALSE(run.world.called("revoke"));
  run.world.silent.clear();
}
void cut(Rig& run) { run.source.handle({T::link_lost, make_error(Errc::peer_unreachable, "cut")}); }

TEST(Source, ComesBackToVerifyWhenTheLinkBreaks) {
  Rig run;
  bring_to_verifying(run, {"ask_digests"});
  cut(run);
  EXPECT_EQ(run.source.state(), S::verifying);
  const std::pair<T, Duration> limit{T::patience_over, std::chrono::minutes(2)};
  EXPECT_EQ(std::count(run.timers.begin(), run.timers.end(), limit), 1);
  run.drain();
  run.check_invariants();
  EXPECT_EQ(std::count(run.world.log.begin(), run.world.log.end(), "ask_digests"), 2);
  EXPECT_TRUE(run.world.called("finish"));
  EXPECT_EQ(run.source.state(), S::done);
  EXPECT_FALSE(run.source.error());
}

TEST(Source, LooksForALostPeerForALimitedTime) {
  Rig run;
  bring_to_verifying(run, {"digest", "ask_digests"});
  cut(run);
  run.world.queue.clear();  // nobody answers
  EXPECT_FALSE(run.source.ended());
  run.source.handle({T::patience_over});
  run.drain();
  run.check_invariants();
  EXPECT_TRUE(run.world.called("stop_copy")) << "a digest that nobody will compare is still computed";
  EXPECT_EQ(run.source.state(), S::failed);
  EXPECT_EQ(run.source.owner(), SourceOwner::destination);
  EXPECT_EQ(run.source.error()->code, Errc::cleanup_incomplete);
  EXPECT_FALSE(run.world.called("finish"));
}

TEST(Source, ASecondBreakHasItsOwnTime) {
  Rig run;
  bring_to_verifying(run, {"digest", "ask_digests"});
  cut(run);
  run.world.silent = {"ask_digests"};
  run.drain();  // found again
  cut(run);
  run.world.queue.clear();
  run.source.handle({T::patience_over});  // the first one's
  EXPECT_EQ(run.source.state(), S::verifying);
  run.source.handle({T::patience_over});
  EXPECT_EQ(run.source.state(), S::finishing);
}

TEST(Source, ItsPatienceMeansNothingOnceThePeerIsFound) {
  Rig run;
  bring_to_verifying(run, {"digest"});
  cut(run);
  run.drain();
  run.source.handle({T::patience_over});
  EXPECT_EQ(run.source.state(), S::verifying);
  run.source.handle({T::digests_taken});
  run.drain();
  EXPECT_EQ(run.source.state(), S::done);
}

// Its digests are here; what is missing is that it hears of the end.
TEST(Source, ComesBackToEndWhatIsVerified) {
  Rig run;
  bring_to_verifying(run, {"digest"});  // the peer's are here
  cut(run);
  run.source.handle({T::digests_taken});
  EXPECT_EQ(run.source.state(), S::verifying);
  run.drain();
  EXPECT_TRUE(run.world.called("finish"));
  EXPECT_EQ(run.source.state(), S::done);
}

// A destination that hangs keeps its link.
TEST(Source, DoesNotWaitForEverForTheLastWord) {
  for (const auto last : {T::patience_over, T::shut_down}) {
    Rig run;
    bring_to_verifying(run, {"digest"});
    run.world.silent = {"finish"};
    run.source.handle({T::digests_taken});
    run.drain();
    EXPECT_EQ(run.source.state(), S::finishing);
    run.source.handle({last});
    EXPECT_EQ(run.source.state(), S::failed) << event_name(last);
    EXPECT_EQ(run.source.owner(), SourceOwner::destination);
    EXPECT_EQ(run.source.error()->code, Errc::cleanup_incomplete);
  }
}

TEST(Source, WaitsForItsOwnDigestWhenOnlyTheEndIsMissing) {
  Rig run;
  bring_to_verifying(run, {"digest"});
  cut(run);
  run.world.queue.clear();
  run.source.handle({T::patience_over});
  EXPECT_EQ(run.source.state(), S::verifying);
  run.digests_equal = false;
  run.source.handle({T::digests_taken});
  run.drain();
  EXPECT_EQ(run.source.state(), S::failed);
  EXPECT_EQ(run.source.error()->code, Errc::verify_mismatch);
}

// It had them ready when the new connection came up, and says so first.
TEST(Source, DigestsMayComeBeforeTheWordThatTheLinkIsBack) {
  Rig run;
  bring_to_verifying(run, {"ask_digests"});
  cut(run);
  run.source.handle({T::peer_digests});
  EXPECT_EQ(run.source.state(), S::verifying);
  run.drain();
  EXPECT_EQ(std::count(run.world.log.begin(), run.world.log.end(), "ask_digests"), 1);
  EXPECT_TRUE(run.world.called("finish"));
  EXPECT_EQ(run.source.state(), S::done);
}

TEST(Source, GuestThatDoesNotStartThereComesBack) {
  Rig run;
  run.hypervisor.starts_there = false;
  run.go();
  run.check_invariants();
  EXPECT_EQ(run.source.state(), S::failed);
  EXPECT_EQ(run.source.owner(), SourceOwner::source);
  EXPECT_LT(run.world.index("thaw"), run.world.index("refuse_finish"));
}

TEST(Source, GuestIsEndedHereWhenTheDestinationKeepsTheDisks) {
  Rig run;
  run.hypervisor.starts_there = false;
  run.world.guest_runs_there = true;
  run.go();
  run.check_invariants();
  EXPECT_EQ(run.source.owner(), SourceOwner::destination);
  EXPECT_TRUE(run.world.called("end_guest"));
  EXPECT_TRUE(run.world.called("leave_fenced"));
  EXPECT_FALSE(run.world.called("thaw"));
  EXPECT_FALSE(run.world.called("refuse_finish"));
}

TEST(Source, StaysInDoubtWhenTheDaemonStops) {
  Rig run;
  run.source.handle({T::recover});
  EXPECT_EQ(run.source.state(), S::resolving);
  run.source.handle({T::abort_requested});
  EXPECT_EQ(run.source.state(), S::resolving);
  run.source.handle({T::shut_down});
  EXPECT_EQ(run.source.state(), S::in_doubt);
  EXPECT_EQ(run.source.error()->code, Errc::owner_unknown);
  EXPECT_FALSE(run.world.called("thaw"));
}

TEST(Source, OperatorTakesTheDisksOfADeadPeer) {
  Rig run;
  run.source.handle({T::recover});
  run.source.handle({T::peer_unknown});
  EXPECT_EQ(run.source.state(), S::resolving);
  run.world.queue.clear();
  run.source.handle({T::forced});
  EXPECT_EQ(run.source.state(), S::reclaiming);
  EXPECT_FALSE(run.world.called("thaw"));
  run.source.handle({T::recorded});
  EXPECT_TRUE(run.world.called("thaw"));
  EXPECT_EQ(run.source.owner(), SourceOwner::source);
}

TEST(Source, StaysFencedWhileItsReclaimIsNotOnRecord) {
  Rig run;
  run.source.handle({T::recover});
  run.source.handle({T::peer_revoked});
  run.source.handle(failure_of(T::recorded, make_error(Errc::no_space, "full")));
  EXPECT_FALSE(run.world.called("thaw"));
  EXPECT_EQ(run.source.state(), S::reclaiming);
  run.source.handle({T::shut_down});
  EXPECT_EQ(run.source.state(), S::in_doubt);
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
