// SPDX-License-Identifier: GPL-2.0-or-later
// State machine, admission, stash and the pair of maps.
extern "C" {
#include "gate.h"
}

#include <gtest/gtest.h>

#include <map>
#include <vector>

namespace {

const std::vector<u32> kStates = {FERRY_STATE_TRACKING, FERRY_STATE_FROZEN, FERRY_STATE_FENCED,
                                  FERRY_STATE_RECEIVING, FERRY_STATE_GATED};

// The drawing in the uapi header, and nothing else, is legal.
TEST(Gate, LegalTransitionsAreExactlyTheDocumentedOnes) {
  const std::map<std::pair<u32, int>, int> legal = {
      {{FERRY_STATE_TRACKING, FERRY_ACT_FREEZE}, FERRY_STATE_FROZEN},
      {{FERRY_STATE_FROZEN, FERRY_ACT_THAW}, FERRY_STATE_TRACKING},
      {{FERRY_STATE_FROZEN, FERRY_ACT_FENCE}, FERRY_STATE_FENCED},
      {{FERRY_STATE_FENCED, FERRY_ACT_UNFENCE}, FERRY_STATE_TRACKING},
      {{FERRY_STATE_RECEIVING, FERRY_ACT_GATE}, FERRY_STATE_GATED},
      {{FERRY_STATE_RECEIVING, FERRY_ACT_OPEN}, FERRY_STATE_TRACKING},
      {{FERRY_STATE_GATED, FERRY_ACT_OPEN}, FERRY_STATE_TRACKING},
      {{FERRY_STATE_RECEIVING, FERRY_ACT_FENCE}, FERRY_STATE_FENCED},
      {{FERRY_STATE_GATED, FERRY_ACT_FENCE}, FERRY_STATE_FENCED},
  };
  for (u32 state : kStates) {
    for (int action = 0; action < FERRY_NR_ACTIONS; ++action) {
      const auto it = legal.find({state, action});
      EXPECT_EQ(ferry_gate_next(state, static_cast<ferry_action>(action)),
                it == legal.end() ? -EBUSY : it->second)
          << state << " " << action;
    }
  }
}

TEST(Gate, NonsenseIsRefused) {
  EXPECT_EQ(ferry_gate_next(0, FERRY_ACT_THAW), -EBUSY);
  EXPECT_EQ(ferry_gate_next(77, FERRY_ACT_THAW), -EBUSY);
  EXPECT_EQ(ferry_gate_next(FERRY_STATE_FROZEN, FERRY_NR_ACTIONS), -EBUSY);
}

TEST(Gate, FlushesAlwaysPass) {
  for (u32 state : kStates) EXPECT_EQ(ferry_gate_verdict(state, FERRY_FLUSH), FERRY_PASS);
}

TEST(Gate, ReadsWaitOnlyWhenGated) {
  for (u32 state : kStates) {
    EXPECT_EQ(ferry_gate_verdict(state, FERRY_READ),
              state == FERRY_STATE_GATED ? FERRY_HOLD : FERRY_PASS);
  }
}

TEST(Gate, WritesPassOnlyWhileTracking) {
  EXPECT_EQ(ferry_gate_verdict(FERRY_STATE_TRACKING, FERRY_WRITE), FERRY_PASS);
  EXPECT_EQ(ferry_gate_verdict(FERRY_STATE_FROZEN, FERRY_WRITE), FERRY_HOLD);
  EXPECT_EQ(ferry_gate_verdict(FERRY_STATE_FENCED, FERRY_WRITE), FERRY_REFUSE);
  EXPECT_EQ(ferry_gate_verdict(FERRY_STATE_RECEIVING, FERRY_WRITE), FERRY_HOLD);
  EXPECT_EQ(ferry_gate_verdict(FERRY_STATE_GATED, FERRY_WRITE), FERRY_HOLD);
}

TEST(Stash, KeepsBothNumbersAndIsNeverZero) {
  for (u64 first : {u64{0}, u64{1}, u64{12345}, u64{FERRY_MAX_BLOCKS - 1}}) {
    for (u64 nr : {u64{1}, u64{2}, u64{1} << 20, u64{FERRY_STASH_MAX_NR}}) {
      const u64 stash = ferry_stash(first, nr);
      EXPECT_NE(stash, 0u);
      EXPECT_EQ(ferry_stash_first(stash), first);
      EXPECT_EQ(ferry_stash_nr(stash), nr);
      EXPECT_EQ(ferry_stash_is_one(stash), nr == 1);
    }
  }
  EXPECT_EQ(ferry_stash(7, 1), ferry_stash_one(7));
}

class Pair : public testing::Test {
 protected:
  Pair() {
    ferry_geometry_init(&geo, 2 * FERRY_PAGE_BITS + 1);
    for (int i = 0; i < 2; ++i) {
      storage[i].resize((geo.leaf_bytes + geo.sum_bytes) / sizeof(unsigned long));
      pair.bits[i] = storage[i].data();
    }
  }
  u64 mark(u64 first, u64 nr) {
    const u64 n = ferry_map_mark(&geo, pair.bits[pair.live], first, nr);
    newly += n;
    return n;
  }
  unsigned long* retired() { return pair.bits[ferry_pair_other(&pair)]; }
  u64 live_dirty() const { return newly - pair.taken; }
  void retire() {
    ASSERT_EQ(ferry_pair_retire(&pair), 0);
    ferry_pair_account(&pair, ferry_map_count(&geo, retired()));
  }

  ferry_geometry geo{};
  ferry_pair pair{};
  std::vector<unsigned long> storage[2];
  u64 newly = 0;
};

TEST_F(Pair, RetireReleaseCycle) {
  mark(3, 5);
  EXPECT_EQ(live_dirty(), 5u);
  retire();
  EXPECT_EQ(pair.swaps, 1u);
  EXPECT_EQ(live_dirty(), 0u);
  EXPECT_EQ(ferry_pair_retire(&pair), -EBUSY);
  EXPECT_EQ(pair.swaps, 1u);
  mark(4, 1);
  EXPECT_EQ(live_dirty(), 1u);
  EXPECT_EQ(ferry_pair_release(&pair, &geo), 0);
  EXPECT_EQ(ferry_pair_release(&pair, &geo), -EINVAL);
  retire();
  EXPECT_EQ(ferry_map_next(&geo, retired(), 0), 4u);
  EXPECT_EQ(ferry_map_count(&geo, retired()), 1u);
  EXPECT_EQ(ferry_map_count(&geo, pair.bits[pair.live]), 0u);
}

TEST_F(Pair, TakeBackLosesNoBitAndKeepsTheCounts) {
  mark(0, 10);
  retire();
  mark(5, 10);
  ferry_pair_take_back(&pair, &geo);
  EXPECT_FALSE(pair.retired);
  EXPECT_EQ(ferry_map_count(&geo, pair.bits[pair.live]), 15u);
  EXPECT_EQ(live_dirty(), 15u);
  EXPECT_EQ(newly, 20u);
  ferry_pair_take_back(&pair, &geo);
  EXPECT_EQ(live_dirty(), 15u);
  retire();
  EXPECT_EQ(live_dirty(), 0u);
}

// The protocol itself, all interleavings of one write with two swaps and copies. The write is
// submitted, lands on the disk, is marked, and acknowledged; the copier swaps, then copies, twice.
// Marking after landing must never leave the copy different from the disk without a bit; marking
// before landing must, or this test could not fail.
class Protocol {
 public:
  explicit Protocol(bool mark_first) : mark_first_(mark_first) {}

  bool loses_in_any_order() { return explore({}, 0, 0); }

 private:
  bool explore(std::vector<char> order, int w, int c) {
    if (w == 2 && c == 4) return lost(order);
    bool bad = false;
    if (w < 2) {
      order.push_back('w');
      bad |= explore(order, w + 1, c);
      order.pop_back();
    }
    if (c < 4) {
      order.push_back('c');
      bad |= explore(order, w, c + 1);
    }
    return bad;
  }

  bool lost(const std::vector<char>& order) const {
    ferry_geometry geo;
    ferry_geometry_init(&geo, 1);
    std::vector<unsigned long> storage[2];
    ferry_pair pair{};
    for (int i = 0; i < 2; ++i) {
      storage[i].resize((geo.leaf_bytes + geo.sum_bytes) / sizeof(unsigned long));
      pair.bits[i] = storage[i].data();
    }
    int disk = 0, copy = 0, w = 0, c = 0;
    for (char who : order) {
      if (who == 'w') {
        const bool marks = (w++ == 0) == mark_first_;
        if (marks)
          ferry_map_mark(&geo, pair.bits[pair.live], 0, 1);
        else
          disk = 1;
      } else if (c++ % 2 == 0) {
        EXPECT_EQ(ferry_pair_retire(&pair), 0);
      } else {
        if (ferry_map_test(pair.bits[ferry_pair_other(&pair)], 0)) copy = disk;
        ferry_pair_release(&pair, &geo);
      }
    }
    const bool marked = ferry_map_test(pair.bits[pair.live], 0);
    return copy != disk && !marked;
  }

  bool mark_first_;
};

TEST(Protocol, MarkAtCompletionLosesNothing) { EXPECT_FALSE(Protocol(false).loses_in_any_order()); }
TEST(Protocol, MarkAtSubmitLosesAWrite) { EXPECT_TRUE(Protocol(true).loses_in_any_order()); }

}  // namespace
