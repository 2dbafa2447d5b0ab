// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/destination.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <vector>

namespace ferry::migration {
namespace {

using T = DestinationEventType;
using S = DestinationState;

struct Rig : DestinationDevice, SourceLink {
  std::vector<std::string> log;
  std::deque<DestinationEvent> queue;
  int fail_at = -1;
  Destination machine{{*this, *this, [](const std::string&) {}}};

  void call(const char* name, T answer) {
    log.push_back(name);
    if (static_cast<int>(log.size()) == fail_at)
      queue.push_back({T::failed, make_error(Errc::io, std::string(name) + " failed")});
    else
      queue.push_back({answer});
  }
  void prepare() override { call("prepare", T::prepared); }
  void close_gate() override { log.push_back("close_gate"); }
  void flush() override { call("flush", T::flushed); }
  void open_gate() override { call("open_gate", T::opened); }
  void verify() override { call("verify", T::verified); }
  void finish() override { call("finish", T::cleaned); }
  void discard() override { call("discard", T::cleaned); }
  void answer(std::string_view what) override { log.push_back("say " + std::string(what)); }
  void refuse(const Error&) override { log.push_back("refuse"); }

  void drain() {
    while (!queue.empty()) {
      auto event = queue.front();
      queue.pop_front();
      machine.handle(event);
    }
  }
  // What a source asks in a good run, one after the other; `cut` puts an event before the n-th.
  void go(int cut_before = -1, T cut = T::link_lost, bool before_answers = false) {
    const T asks[] = {T::prepare, T::close_gate, T::ready_asked, T::granted, T::digests_asked,
                      T::finish_asked};
    int n = 0;
    for (T ask : asks) {
      if (n == cut_before && !before_answers) {
        machine.handle({cut});
        drain();
      }
      machine.handle({ask});
      if (n == cut_before && before_answers) machine.handle({cut});
      drain();
      ++n;
      if (machine.ended()) break;
    }
  }
  bool called(const std::string& name) const {
    return std::find(log.begin(), log.end(), name) != log.end();
  }
  void check() {
    std::string all;
    for (auto& l : log) all += l + " ";
    SCOPED_TRACE(all);
    EXPECT_TRUE(machine.ended()) << state_name(machine.state());
    if (machine.opened()) {
      EXPECT_FALSE(called("discard")) << "an owned disk was thrown away";
    }
    if (called("discard") && called("open_gate")) {
      EXPECT_NE(std::find(log.begin(), log.end(), "open_gate"), log.end());
    }
    EXPECT_LE(std::count(log.begin(), log.end(), "discard") + std::count(log.begin(), log.end(), "finish"), 1);
  }
};

TEST(Destination, TakesAGuestIn) {
  Rig run;
  run.go();
  run.check();
  EXPECT_EQ(run.machine.state(), S::finished);
  const std::vector<std::string> expected{"prepare", "say prepared", "close_gate", "flush", "say ready",
                                          "open_gate", "say opened", "verify", "say digests", "finish",
                                          "say finished"};
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
