// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/destination_test_rig.h"

namespace ferry::migration {
namespace {

using destination_rig::Rig;
using destination_rig::S;
using destination_rig::T;

TEST(Destination, TakesAGuestIn) {
  Rig run;
  run.go();
  run.check();
  EXPECT_EQ(run.machine.state(), S::finished);
  const std::vector<std::string> expected{
      "record_receiving", "prepare", "say prepared", "close_gate", "flush",       "record_prepared", "say ready",
      "record_owned",     "open_gate", "say opened", "verify",     "say digests", "finish",          "say finished"};
  EXPECT_EQ(run.log, expected);
}

TEST(Destination, NeverOpensWithoutAGrant) {
  for (T cut : {T::link_lost, T::abort_asked}) {
    for (bool late : {false, true}) {
      for (int n = 0; n < 6; ++n) {
        Rig run;
        run.go(n, cut, late);
        run.check();
        const bool before_grant = n < 3 || (n == 3 && !late);
        if (before_grant) {
          EXPECT_FALSE(run.called("open_gate"));
        }
        if (n >= 4) {
          EXPECT_FALSE(run.called("discard"));
        }
      }
    }
  }
}

// It may be reading a whole old copy; meanwhile every other session would be turned away.
TEST(Destination, DoesNotPrepareToTheEndForASourceThatIsGone) {
  Rig run;
  run.machine.handle({T::prepare});
  run.machine.handle({T::recorded});
  ASSERT_EQ(run.machine.state(), S::preparing);
  run.queue.clear();
  run.machine.handle({T::link_lost});
  run.machine.handle({T::abort_asked});
  EXPECT_EQ(std::count(run.log.begin(), run.log.end(), "cut_short"), 1);
  EXPECT_EQ(run.machine.state(), S::preparing) << "called off when it is idle";
  run.machine.handle({T::failed, make_error(Errc::aborted, "cut short")});
  EXPECT_EQ(run.machine.state(), S::revoking);
}

TEST(Destination, GrantOutOfTurnIsRefused) {
  Rig run;
  run.machine.handle({T::prepare});
  run.drain();
  run.machine.handle({T::granted});
  run.drain();
  EXPECT_FALSE(run.called("open_gate"));
  EXPECT_TRUE(run.called("refuse"));
  EXPECT_TRUE(run.called("discard"));
  EXPECT_EQ(run.machine.error()->code, Errc::protocol);
}

void bring_to(Rig& run, std::initializer_list<T> asks) {
  for (T ask : asks) {
    run.machine.handle({ask});
    run.drain();
  }
}

TEST(Destination, RevokesWhatItHasNotOpened) {
  Rig run;
  bring_to(run, {T::prepare, T::ready_asked, T::revoke_asked});
  EXPECT_LT(run.index("record_revoked"), run.index("say revoked"));
  EXPECT_LT(run.index("say revoked"), run.index("discard"));
  EXPECT_FALSE(run.called("open_gate"));
  EXPECT_TRUE(run.machine.ended());
}

TEST(Destination, TellsThatItHasOpened) {
  Rig run;
  bring_to(run, {T::prepare, T::ready_asked, T::granted, T::link_lost, T::link_back, T::revoke_asked});
  EXPECT_EQ(std::count(run.log.begin(), run.log.end(), "say opened"), 2);
  EXPECT_EQ(run.machine.state(), S::open);
  EXPECT_FALSE(run.called("record_revoked"));
  bring_to(run, {T::finish_asked});
  EXPECT_EQ(run.machine.state(), S::finished);
}

TEST(Destination, GivesBackOnRecordBeforeItSaysSo) {
  Rig run;
  bring_to(run, {T::prepare, T::ready_asked, T::granted, T::return_asked});
  EXPECT_LT(run.index("yield"), run.index("record_given"));
  EXPECT_LT(run.index("record_given"), run.index("say returned"));
  EXPECT_TRUE(run.called("discard"));
  EXPECT_FALSE(run.machine.owns());
  EXPECT_EQ(run.machine.state(), S::failed);
}

TEST(Destination, KeepsDisksThatWereWritten) {
  Rig run;
  bring_to(run, {T::prepare, T::ready_asked, T::granted});
  run.fail_at = static_cast<int>(run.log.size()) + 1;
  bring_to(run, {T::return_asked});
  EXPECT_TRUE(run.called("refuse"));
  EXPECT_FALSE(run.called("record_given"));
  EXPECT_EQ(run.machine.state(), S::open);
  EXPECT_TRUE(run.machine.owns());
}

// A question that comes while the grant is being put on record is answered when that is settled.
TEST(Destination, QuestionDuringTheGrantWaits) {
  Rig run;
  bring_to(run, {T::prepare, T::ready_asked});
  run.machine.handle({T::granted});
  run.machine.handle({T::revoke_asked});
  EXPECT_FALSE(run.called("say revoked"));
  run.drain();
  EXPECT_TRUE(run.called("say opened"));
  EXPECT_FALSE(run.called("record_revoked"));
}

TEST(Destination, WhoseGateStaysClosedGivesBack) {
  Rig run;
  bring_to(run, {T::prepare, T::ready_asked});
  run.fail_at = static_cast<int>(run.log.size()) + 2;  // record_owned goes well, open_gate does not
  bring_to(run, {T::granted});
  EXPECT_TRUE(run.called("refuse"));
  EXPECT_TRUE(run.called("say returned"));
  EXPECT_FALSE(run.called("say opened"));
}

TEST(Destination, OwnedDisksOutliveASourceThatIsGone) {
  Rig run;
  bring_to(run, {T::prepare, T::ready_asked, T::granted, T::link_lost});
  EXPECT_TRUE(run.called("schedule"));
  bring_to(run, {T::patience_over});
  EXPECT_TRUE(run.called("finish"));
  EXPECT_FALSE(run.called("discard"));
}

// The link broke while it compared; it compares once, and tells whoever is there then.
TEST(Destination, AnswersOnceWhenItIsAskedToVerifyAgain) {
  Rig run;
  bring_to(run, {T::prepare, T::ready_asked, T::granted});
  run.machine.handle({T::digests_asked});
  run.machine.handle({T::link_lost});
  run.machine.handle({T::link_back});
  run.machine.handle({T::revoke_asked});
  EXPECT_TRUE(run.called("say opened"));
  run.machine.handle({T::digests_asked});
  run.drain();
  EXPECT_EQ(std::count(run.log.begin(), run.log.end(), "verify"), 1);
  EXPECT_EQ(std::count(run.log.begin(), run.log.end(), "say digests"), 1);
  EXPECT_FALSE(run.called("refuse"));
  EXPECT_EQ(run.machine.state(), S::open);
}

TEST(Destination, EndsCleanlyWhicheverStepFails) {
  Rig good;
  good.go();
  for (int n = 1; n <= static_cast<int>(good.log.size()); ++n) {
    Rig run;
    run.fail_at = n;
    run.go();
    if (!run.machine.ended()) {  // the source reacts to a refusal by leaving
      run.machine.handle({T::link_lost});
      run.drain();
    }
    SCOPED_TRACE("call " + std::to_string(n));
    run.check();
  }
}

}  // namespace
}  // namespace ferry::migration
