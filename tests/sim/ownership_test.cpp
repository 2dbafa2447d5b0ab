// SPDX-License-Identifier: GPL-2.0-or-later
// The ownership part in every order of events: kept by the machines, broken by each world that is known to be
// wrong. docs/simulator.md.
#include <gtest/gtest.h>

#include <iostream>
#include <sstream>

#include "exploration.h"
#include "random.h"

namespace ferry::sim {
namespace {

constexpr std::uint64_t kMaxStates = 4'000'000;

std::string text_of(const Exploration& result) {
  std::ostringstream out;
  print(out, result.trace);
  return out.str();
}

struct Bounded {
  const char* name;
  OwnershipBounds bounds;
};
void PrintTo(const Bounded& bounded, std::ostream* out) { *out << bounded.name; }

class Ownership : public testing::TestWithParam<Bounded> {};

TEST_P(Ownership, HoldsInEveryOrder) {
  OwnershipModel model(GetParam().bounds, Mutation::none);
  const Exploration result = explore(model, kMaxStates);
  EXPECT_EQ(result.broken, "") << text_of(result);
  EXPECT_TRUE(result.complete);
  EXPECT_GT(result.rests, 0u);
  std::cout << "  " << GetParam().name << ": " << result.states << " states, " << result.steps << " steps, "
            << result.rests << " ways to rest\n";
}

INSTANTIATE_TEST_SUITE_P(
    Simulator, Ownership,
    testing::Values(Bounded{"no fault", {0, 0, 0, 0, 0}}, Bounded{"one crash each, one broken link", {1, 0, 1, 0, 0}},
                    Bounded{"one crash each, one loss of power", {1, 1, 0, 0, 0}},
                    Bounded{"two broken links, a failing record", {0, 0, 2, 1, 0}},
                    Bounded{"a loss of power, a broken link, libvirt's own mind", {0, 1, 1, 0, 1}}),
    [](const auto& info) { return "bounds" + std::to_string(info.index); });

class WrongWorld : public testing::TestWithParam<Mutation> {};

TEST_P(WrongWorld, IsFound) {
  // Small bounds within which each of them shows, and costs data.
  const OwnershipBounds bounds = GetParam() == Mutation::no_bar_at_boot      ? OwnershipBounds{0, 1, 0, 0, 1}
                                 : GetParam() == Mutation::fence_after_grant ? OwnershipBounds{1, 0, 1, 0, 0}
                                                                             : OwnershipBounds{1, 0, 1, 0, 1};
  OwnershipModel model(bounds, GetParam());
  const Exploration result = explore(model, kMaxStates);
  EXPECT_NE(result.broken, "");
  std::cout << "  " << mutation_name(GetParam()) << ": " << result.broken << ", " << result.trace.size() << " steps\n";
}

INSTANTIATE_TEST_SUITE_P(Simulator, WrongWorld,
                         testing::Values(Mutation::fence_after_grant, Mutation::unfence_without_revoke,
                                         Mutation::open_before_record, Mutation::grant_before_record,
                                         Mutation::resume_before_reclaim, Mutation::revoked_without_record,
                                         Mutation::no_bar_at_boot, Mutation::restart_forgets_grant,
                                         Mutation::return_unchecked, Mutation::fence_lost_on_leave),
                         [](const auto& info) {
                           return "mutation" + std::to_string(static_cast<unsigned>(info.param));
                         });

// --- that saving and loading a machine loses nothing

using migration::MachineProbe;
using ST = migration::SourceEventType;
using DT = migration::DestinationEventType;

struct Calls : migration::SourceDevice, migration::Ledger, migration::Clock {
  struct Link : migration::PeerLink {
    explicit Link(std::string& calls) : log(calls) {}
    void connect() override { log += " connect"; }
    void prepare() override { log += " prepare"; }
    void close_gate() override { log += " close_gate"; }
    void ask_ready() override { log += " ask_ready"; }
    void grant() override { log += " grant"; }
    void revoke() override { log += " revoke"; }
    void ask_return() override { log += " ask_return"; }
    void ask_digests() override { log += " ask_digests"; }
    void finish() override { log += " finish"; }
    void abort() override { log += " abort"; }
    std::string& log;
  };
  struct Guest : migration::Hypervisor {
    explicit Guest(std::string& calls) : log(calls) {}
    void start() override { log += " start"; }
    void abort() override { log += " hyp_abort"; }
    void release_finish() override { log += " release"; }
    void refuse_finish() override { log += " refuse"; }
    void end_guest() override { log += " end_guest"; }
    std::string& log;
  };
  void attach() override { log += " attach"; }
  void copy_round(migration::RoundKind) override { log += " copy"; }
  void stop_copy() override { log += " stop"; }
  void freeze() override { log += " freeze"; }
  void thaw() override { log += " thaw"; }
  void fence() override { log += " fence"; }
  void digest() override { log += " digest"; }
  void detach() override { log += " detach"; }
  void leave_fenced() override { log += " leave"; }
  void record(store::Holding holding) override { log += std::string(" record ") + store::holding_name(holding).data(); }
  migration::TimePoint now() const override { return {}; }

  std::string log;
  Link link{log};
  Guest guest{log};
  migration::Source machine{{*this, *this, link, guest, *this, [this](migration::Duration, ST) { log += " pace"; },
                             [] { return true; }, [](const std::string&) {}}, {}};
};

migration::SourceEvent source_event(ST type, Random& random) {
  migration::SourceEvent event{type};
  event.round = {1 << 20, std::chrono::seconds(1), 0};
  if (random.chance(30)) event.error = make_error(random.chance(50) ? Errc::io : Errc::aborted, "a test");
  if (type == ST::failed) event.instead_of = static_cast<ST>(random.below(static_cast<std::uint32_t>(ST::shut_down)));
  return event;
}

TEST(MachineProbe, LosesNothingOfASource) {
  constexpr ST kWay[] = {ST::start,         ST::connected,       ST::peer_prepared, ST::recorded,     ST::attached,
                         ST::round_done,    ST::round_done,      ST::guest_paused,  ST::finish_seen,  ST::round_done,
                         ST::frozen,        ST::round_done,      ST::peer_ready,    ST::fenced,       ST::recorded,
                         ST::peer_opened,   ST::hypervisor_done, ST::digests_taken, ST::peer_digests, ST::recorded,
                         ST::peer_finished, ST::detached};
  Random random(7);
  for (int walk = 0; walk < 5'000; ++walk) {
    Calls whole, reloaded;
    const auto feed = [&](ST type) {
      MachineProbe::load(reloaded.machine, MachineProbe::save(whole.machine));
      const auto event = source_event(type, random);
      whole.log.clear(), reloaded.log.clear();
      whole.machine.handle(event);
      reloaded.machine.handle(event);
      ASSERT_EQ(whole.log, reloaded.log) << migration::event_name(type);
      ASSERT_EQ(MachineProbe::save(whole.machine), MachineProbe::save(reloaded.machine));
    };
    const std::size_t straight = random.below(std::size(kWay) + 1);
    for (std::size_t n = 0; n < straight; ++n) feed(kWay[n]);
    for (int n = 0; n < 30; ++n) feed(static_cast<ST>(random.below(static_cast<std::uint32_t>(ST::shut_down) + 1)));
    if (HasFatalFailure()) return;
  }
}

struct Answers : migration::DestinationDevice, migration::SourceLink, migration::Ledger {
  void prepare() override { log += " prepare"; }
  void cut_short() override {}
  void close_gate() override { log += " close_gate"; }
  void flush() override { log += " flush"; }
  void open_gate() override { log += " open"; }
  void verify() override { log += " verify"; }
  void yield() override { log += " yield"; }
  void finish() override { log += " finish"; }
  void discard() override { log += " discard"; }
  void answer(std::string_view what) override { log += " say " + std::string(what); }
  void refuse(const Error& error) override { log += " refuse " + std::string(errc_name(error.code)); }
  void record(store::Holding holding) override { log += std::string(" record ") + store::holding_name(holding).data(); }

  std::string log;
  migration::Destination machine{{*this, *this, *this, [this](migration::Duration) { log += " wait"; },
                                  [](const std::string&) {}}};
};

TEST(MachineProbe, LosesNothingOfADestination) {
  constexpr DT kWay[] = {DT::prepare,       DT::recorded, DT::prepared,     DT::close_gate, DT::ready_asked,
                         DT::flushed,       DT::recorded, DT::granted,      DT::recorded,   DT::opened,
                         DT::digests_asked, DT::verified, DT::finish_asked, DT::cleaned};
  Random random(8);
  for (int walk = 0; walk < 5'000; ++walk) {
    Answers whole, reloaded;
    const auto feed = [&](DT type) {
      MachineProbe::load(reloaded.machine, MachineProbe::save(whole.machine));
      migration::DestinationEvent event{type};
      if (random.chance(30)) event.error = make_error(random.chance(50) ? Errc::io : Errc::busy, "a test");
      whole.log.clear(), reloaded.log.clear();
      whole.machine.handle(event);
      reloaded.machine.handle(event);
      ASSERT_EQ(whole.log, reloaded.log) << migration::event_name(type);
    };
    const std::size_t straight = random.below(std::size(kWay) + 1);
    for (std::size_t n = 0; n < straight; ++n) feed(kWay[n]);
    for (int n = 0; n < 30; ++n) feed(static_cast<DT>(random.below(static_cast<std::uint32_t>(DT::failed) + 1)));
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace ferry::sim
