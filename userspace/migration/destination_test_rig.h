// SPDX-License-Identifier: GPL-2.0-or-later
// A world for tests of Destination: it answers at once, logs what was asked, and fails where a test wants it to.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "migration/destination.h"

namespace ferry::migration::destination_rig {

using T = DestinationEventType;
using S = DestinationState;

struct Rig : DestinationDevice, SourceLink, Ledger {
  std::vector<std::string> log;
  std::vector<std::string> trace;
  std::deque<DestinationEvent> queue;
  int fail_at = -1;
  Destination machine{{*this, *this, *this, [this](Duration) { log.push_back("schedule"); }, [this](const std::string& line) { trace.push_back(line); }}};

  void call(const char* name, T answer) {
    log.push_back(name);
    if (static_cast<int>(log.size()) == fail_at)
      queue.push_back({T::failed, make_error(Errc::io, std::string(name) + " failed")});
    else
      queue.push_back({answer});
  }
  void prepare() override { call("prepare", T::prepared); }
  void cut_short() override { log.push_back("cut_short"); }
  void close_gate() override { log.push_back("close_gate"); }
  void flush() override { call("flush", T::flushed); }
  void open_gate() override { call("open_gate", T::opened); }
  void yield() override { call("yield", T::yielded); }
  void record(Holding holding) override { call(("record_" + std::string(store::holding_name(holding))).c_str(), T::recorded); }
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
  long index(const std::string& name) const { return std::find(log.begin(), log.end(), name) - log.begin(); }
  void check() {
    std::string all;
    for (auto& l : log) all += l + " ";
    SCOPED_TRACE(all);
    if (machine.state() == S::open) machine.handle({T::patience_over});
    drain();
    EXPECT_TRUE(machine.ended()) << state_name(machine.state());
    if (called("open_gate")) {
      EXPECT_LT(index("record_owned"), index("open_gate"));
    }
    if (called("say ready")) {
      EXPECT_LT(index("record_prepared"), index("say ready"));
    }
    if (machine.owns()) {
      EXPECT_FALSE(called("discard")) << "an owned disk was thrown away";
    }
    if (called("discard") && called("open_gate")) {
      EXPECT_NE(std::find(log.begin(), log.end(), "open_gate"), log.end());
    }
    EXPECT_LE(std::count(log.begin(), log.end(), "discard") + std::count(log.begin(), log.end(), "finish"), 1);
  }
};

}  // namespace ferry::migration::destination_rig
