// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/retry.h"

#include <gtest/gtest.h>

namespace ferry::migration {
namespace {

using namespace std::chrono_literals;

constexpr RetryPolicy kPolicy{10min, 1s, 30s};

AttemptEnd broke(bool copied, Errc code = Errc::peer_unreachable) {
  return {SourceState::failed, SourceOwner::source, make_error(code, "the link broke"), copied};
}

class RetryTest : public ::testing::Test {
 protected:
  TimePoint now_{};
  Retry retry_{kPolicy, now_, false};
};

TEST_F(RetryTest, ALinkThatNeverWorkedIsNotTriedAgain) { EXPECT_EQ(retry_.next(broke(false), now_), std::nullopt); }

TEST_F(RetryTest, ThePauseDoublesUpToItsLimit) {
  EXPECT_EQ(retry_.next(broke(true), now_), Duration(1s));
  for (const auto pause : {2s, 4s, 8s, 16s, 30s, 30s}) EXPECT_EQ(retry_.next(broke(false), now_), Duration(pause));
}

TEST_F(RetryTest, ACopyBeginsTheCountAnew) {
  for (int n = 0; n < 5; ++n) (void)retry_.next(broke(n == 0), now_);
  EXPECT_EQ(retry_.next(broke(true), now_), Duration(1s));
}

TEST_F(RetryTest, GivesUpWhenNothingWasCopiedForLong) {
  EXPECT_TRUE(retry_.next(broke(true), now_));
  EXPECT_TRUE(retry_.next(broke(false), now_ + 9min));
  EXPECT_EQ(retry_.next(broke(false), now_ + 10min), std::nullopt);
}

TEST_F(RetryTest, ABusyPeerIsAskedAgain) { EXPECT_TRUE(retry_.next(broke(true, Errc::busy), now_)); }

// Each time would cost the guest a minute.
TEST_F(RetryTest, AGuestThatStoodStillTooLongIsLeftAlone) { EXPECT_EQ(retry_.next(broke(true, Errc::timeout), now_), std::nullopt); }

TEST_F(RetryTest, OtherErrorsAreFinal) {
  for (const auto code : {Errc::io, Errc::no_space, Errc::not_converged, Errc::size_mismatch, Errc::protocol, Errc::verify_mismatch})
    EXPECT_EQ(retry_.next(broke(true, code), now_), std::nullopt) << errc_name(code);
}

TEST_F(RetryTest, NeverAfterAnAbortNorWhenTheOwnerIsNotTheSource) {
  for (const auto state : {SourceState::aborted, SourceState::done, SourceState::in_doubt}) {
    auto end = broke(true);
    end.state = state;
    EXPECT_EQ(retry_.next(end, now_), std::nullopt);
  }
  for (const auto owner : {SourceOwner::destination, SourceOwner::unknown}) {
    auto end = broke(true);
    end.owner = owner;
    EXPECT_EQ(retry_.next(end, now_), std::nullopt);
  }
}

TEST_F(RetryTest, ZeroMeansNever) {
  Retry none({0s, 1s, 30s}, now_, false);
  EXPECT_EQ(none.next(broke(true), now_), std::nullopt);
}

TEST_F(RetryTest, GoesOnAfterARestartThoughTheFirstTryFails) {
  Retry again(kPolicy, now_, true);
  EXPECT_EQ(again.next(broke(false), now_), Duration(1s));
}

// ---- what was asked meanwhile

using Step = Next::Step;

AttemptEnd stopped() { return {SourceState::aborted, SourceOwner::source, make_error(Errc::aborted, "asked to"), true}; }

class AskedTest : public RetryTest {
 protected:
  Step after(const AttemptEnd& end, const Asked& asked) { return retry_.after(end, asked, now_).step; }
};

TEST_F(AskedTest, NothingAskedIsTheRetrysToSay) {
  EXPECT_EQ(after(broke(true), {}), Step::again);
  EXPECT_EQ(retry_.after(broke(true), {}, now_).pause, Duration(1s));
  EXPECT_EQ(after(broke(true, Errc::io), {}), Step::over);
  EXPECT_EQ(after(stopped(), {}), Step::over) << "aborted by the peer, say";
}

TEST_F(AskedTest, AnAttemptThatWasStoppedForItStandsStillOrWaitsForTheNextFerryd) {
  EXPECT_EQ(after(stopped(), {.pause = true}), Step::stand_still);
  EXPECT_EQ(after(stopped(), {.stop = true}), Step::later);
  EXPECT_EQ(after(stopped(), {.pause = true, .stop = true}), Step::later);
}

// The attempt was being rolled back already, so it ended for the reason that it had.
TEST_F(AskedTest, ARequestDuringARollBackDoesNotEndTheJob) {
  EXPECT_EQ(after(broke(true), {.pause = true}), Step::stand_still);
  EXPECT_EQ(after(broke(true), {.stop = true}), Step::later);
}

TEST_F(AskedTest, NorDoesItSaveAJobThatIsOver) {
  EXPECT_EQ(after(broke(true, Errc::io), {.pause = true}), Step::over);
  EXPECT_EQ(after(broke(true, Errc::io), {.stop = true}), Step::over);
  for (const auto owner : {SourceOwner::destination, SourceOwner::unknown}) {
    auto end = stopped();
    end.owner = owner;
    EXPECT_EQ(after(end, {.pause = true}), Step::over);
    EXPECT_EQ(after(end, {.stop = true}), Step::over);
  }
}

TEST_F(AskedTest, AbortEndsItWhateverElseWasAsked) {
  for (const bool other : {false, true})
    for (const auto& end : {broke(true), stopped()})
      EXPECT_EQ(after(end, {.abort = true, .pause = other, .stop = other}), Step::over);
}

}  // namespace
}  // namespace ferry::migration
