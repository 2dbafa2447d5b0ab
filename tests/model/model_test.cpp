// SPDX-License-Identifier: GPL-2.0-or-later
// The filter's promises in every order of steps: kept by the module's order, broken by each order that
// is known to be wrong. A model that could not find those would prove nothing.
#include <gtest/gtest.h>

#include <iomanip>
#include <iostream>
#include <sstream>
#include <string>

#include "explorer.h"

namespace ferry::model {
namespace {

constexpr uint64_t kMaxStates = 4'000'000;

// What the tests of this run found, printed at its end.
class Table : public testing::Environment {
 public:
  void add(const std::string& name, const Result& result) {
    rows_ << "  " << std::left << std::setw(40) << name << std::right << std::setw(9)
          << result.states << "  " << std::left << std::setw(36)
          << (result.trace.empty() ? result.complete ? "holds in every order" : "NOT EXPLORED WHOLLY"
                                   : name_of(result.broken))
          << std::right << std::setw(6)
          << (result.trace.empty() ? "-" : std::to_string(result.trace.size())) << '\n';
  }
  void TearDown() override {
    std::cout << "\n  " << std::left << std::setw(40) << "variant" << std::right << std::setw(9)
              << "states" << "  " << std::left << std::setw(36) << "verdict" << std::right
              << std::setw(6) << "trace" << '\n' << rows_.str() << '\n';
  }

 private:
  std::ostringstream rows_;
};

Table& table() {
  static Table* it = static_cast<Table*>(testing::AddGlobalTestEnvironment(new Table));
  return *it;
}
const bool table_is_registered = (table(), true);

// Without a counterexample, to the end, and past everything in `must_see`.
void expect_right(const std::string& name, Variant variant, const Bounds& bounds,
                  unsigned must_see) {
  Machine machine(variant, bounds);
  const Result result = explore(machine, Broken::kNothing, kMaxStates);
  table().add(name, result);
  if (!result.trace.empty()) print(std::cout, bounds, result.trace);
  EXPECT_EQ(result.broken, Broken::kNothing) << name_of(result.broken);
  EXPECT_TRUE(result.complete);
  EXPECT_EQ(machine.seen() & must_see, must_see);
}

constexpr unsigned kAlways = kSawFenced | kSawHeld | kSawRefused | kSawGraceWait | kSawMarkedAlready;

TEST(Model, ThreeWritesSwapsAndFreeze) {
  expect_right("right: three writes", Variant::kRight, {.writes = 3, .rounds = 2},
               kAlways | kSawTimeout);
}

TEST(Model, FailedWritesAndMoreRounds) {
  expect_right("right: errors, four swaps", Variant::kRight,
               {.writes = 2, .may_fail = true, .rounds = 3, .freezes = 2}, kAlways | kSawTimeout);
}

TEST(Model, ThawAndSuspendLoseAFreeze) {
  expect_right("right: thaw, suspend", Variant::kRight,
               {.writes = 2, .rounds = 1, .freezes = 2, .thaws = 1, .suspends = 1},
               kAlways | kSawTimeout | kSawCancelled | kSawFenceRefused | kSawHeldGoOn);
}

TEST(Model, AnotherThreadFreezes) {
  expect_right("right: another thread's freeze", Variant::kRight,
               {.writes = 2, .rounds = 0, .freezes = 2, .thaws = 2, .others = 1},
               kAlways | kSawCancelled | kSawOvertaken);
}

TEST(Model, TheOwnerDies) {
  expect_right("right: death of the owner", Variant::kRight,
               {.writes = 3, .rounds = 1, .freezes = 1, .deaths = 1},
               kAlways | kSawTakenBack | kSawHeldGoOn);
}

TEST(Model, EverythingAtOnce) {
  expect_right("right: thaw, suspend, death", Variant::kRight,
               {.writes = 2, .rounds = 1, .freezes = 2, .thaws = 1, .suspends = 1, .deaths = 1},
               kAlways | kSawTimeout | kSawCancelled | kSawFenceRefused | kSawTakenBack);
}

constexpr unsigned kGated = kSawHeld | kSawSentBack;

// A noflush suspend gets by a gate that stays closed, and a write that it takes back is not lost.
TEST(Model, SuspendsBehindAClosedGate) {
  expect_right("right: closed gate, suspends", Variant::kRight,
               {.writes = 3, .begins = FERRY_STATE_GATED, .suspends = 2}, kGated);
}

TEST(Model, SuspendsWhileTheGateOpens) {
  expect_right("right: gate opens, suspends", Variant::kRight,
               {.writes = 3, .begins = FERRY_STATE_GATED, .gate_opens = true, .suspends = 2},
               kGated | kSawHeldGoOn | kSawMarkedAlready);
}

// That a swap's grace period covers the mark makes the order of mark and count free inside the section.
TEST(Model, CountingOutBetweenLoadAndMarkIsHarmless) {
  expect_right("right too: counts out in section", Variant::kCountOutInSection,
               {.writes = 2, .rounds = 1}, kAlways);
}

struct Wrong {
  Variant variant;
  const char* name;
  Broken breaks;
  Bounds bounds = {};
};

void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.name; }

class KnownBad : public testing::TestWithParam<Wrong> {};

TEST_P(KnownBad, IsFound) {
  const Wrong& wrong = GetParam();
  Machine machine(wrong.variant, wrong.bounds);
  const Result result = explore(machine, wrong.breaks, kMaxStates);
  table().add(wrong.name, result);
  std::cout << "  " << wrong.name << ": " << name_of(result.broken) << '\n';
  print(std::cout, wrong.bounds, result.trace);
  EXPECT_EQ(result.broken, wrong.breaks);
  EXPECT_GT(result.trace.size(), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Variants, KnownBad,
    testing::Values(
        Wrong{Variant::kMarkAtSubmit, "mark at submit only", Broken::kLost},
        Wrong{Variant::kMapOfSubmission, "mark the map of submission", Broken::kLost},
        Wrong{Variant::kMarkOnlySuccess, "no mark for failed writes", Broken::kLost,
              {.may_fail = true}},
        Wrong{Variant::kCountOutFirst, "count out before the section", Broken::kLost},
        Wrong{Variant::kSwapWithoutGrace, "swap without grace period", Broken::kLost},
        Wrong{Variant::kSwapWithoutGrace, "swap without grace period (map)",
              Broken::kRetiredMapChanged},
        Wrong{Variant::kClearInLiveMap, "clear bits in the live map", Broken::kLost},
        Wrong{Variant::kFreezeWithoutGrace, "freeze without grace period", Broken::kLost},
        Wrong{Variant::kFreezeWithoutGrace, "freeze without grace period (I/O)",
              Broken::kBusyWhileFrozen},
        Wrong{Variant::kFreezeWithoutGrace, "freeze without grace period (fence)",
              Broken::kLandsWhenClosed},
        Wrong{Variant::kFreezeWithoutDrain, "freeze without drain", Broken::kLost},
        Wrong{Variant::kFreezeWithoutNumber, "freeze without its number",
              Broken::kBusyWhileFrozen, {.thaws = 1, .others = 1}},
        Wrong{Variant::kFreezeWithoutNumber, "freeze without its number (data)", Broken::kLost,
              {.thaws = 1, .others = 1}},
        Wrong{Variant::kFenceInAnyState, "fence after a lost freeze", Broken::kLost, {.thaws = 1}},
        Wrong{Variant::kReleaseBeforeCopy, "release before the copy", Broken::kLost, {.deaths = 1}},
        Wrong{Variant::kDisownForgets, "disown forgets the map", Broken::kLost, {.deaths = 1}},
        Wrong{Variant::kDisownForgets, "disown forgets the map (bits)", Broken::kBitsLost,
              {.deaths = 1}},
        Wrong{Variant::kThawWithoutRelease, "thaw without release", Broken::kStuck, {.thaws = 1}},
        Wrong{Variant::kSuspendIgnoresHeld, "suspend ignores held writes", Broken::kStuck,
              {.begins = FERRY_STATE_GATED, .suspends = 1}}),
    [](const auto& info) {
      std::string name = info.param.name;
      for (char& c : name)
        if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
      return name;
    });

}  // namespace
}  // namespace ferry::model
