// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/retired_map.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace ferry::filter {
namespace {

class BitMap {
 public:
  explicit BitMap(uint64_t nr_blocks)
      : leaf_((nr_blocks + 63) / 64), nr_blocks_(nr_blocks) {
    uint64_t pages = (nr_blocks + MapView::kBlocksPerPage - 1) / MapView::kBlocksPerPage;
    summary_.resize((pages + 63) / 64);
  }
  void set(uint64_t block) {
    leaf_[block / 64] |= uint64_t{1} << (block % 64);
    uint64_t page = block / MapView::kBlocksPerPage;
    summary_[page / 64] |= uint64_t{1} << (page % 64);
  }
  MapView view() const { return MapView(leaf_, summary_, nr_blocks_); }
  std::vector<uint64_t>& leaf() { return leaf_; }

 private:
  std::vector<uint64_t> leaf_, summary_;
  uint64_t nr_blocks_;
};

std::vector<uint64_t> blocks_by_runs(const MapView& view, uint64_t max_blocks) {
  std::vector<uint64_t> found;
  uint64_t at = 0;
  while (auto run = view.next_run(at, max_blocks)) {
    EXPECT_GE(run->first, at);
    EXPECT_GE(run->count, 1u);
    EXPECT_LE(run->count, max_blocks);
    for (uint64_t i = 0; i < run->count; ++i) found.push_back(run->first + i);
    at = run->first + run->count;
  }
  return found;
}

TEST(MapViewTest, EmptyMapHasNoRun) {
  BitMap map(100'000);
  EXPECT_FALSE(map.view().next_run(0, 16));
  EXPECT_FALSE(BitMap(0).view().next_run(0, 16));
}

TEST(MapViewTest, FirstAndLastBlock) {
  BitMap map(100'001);
  map.set(0);
  map.set(100'000);
  EXPECT_EQ(map.view().next_run(0, 16), (BlockRun{0, 1}));
  EXPECT_EQ(map.view().next_run(1, 16), (BlockRun{100'000, 1}));
  EXPECT_FALSE(map.view().next_run(100'001, 16));
  EXPECT_TRUE(map.view().test(100'000));
  EXPECT_FALSE(map.view().test(100'001));
}

TEST(MapViewTest, RunCrossesWordsAndPages) {
  BitMap map(3 * MapView::kBlocksPerPage);
  uint64_t first = MapView::kBlocksPerPage - 70;
  for (uint64_t i = 0; i < 300; ++i) map.set(first + i);
  EXPECT_EQ(map.view().next_run(0, 1000), (BlockRun{first, 300}));
  EXPECT_EQ(map.view().next_run(0, 256), (BlockRun{first, 256}));
  EXPECT_EQ(map.view().next_run(first + 256, 256), (BlockRun{first + 256, 44}));
}

TEST(MapViewTest, HugeMaximumDoesNotOverflow) {
  BitMap map(1000);
  map.set(999);
  EXPECT_EQ(map.view().next_run(5, UINT64_MAX), (BlockRun{999, 1}));
}

TEST(MapViewTest, SummaryIsUsed) {
  BitMap map(4 * MapView::kBlocksPerPage);
  // A bit without its summary bit is not looked for.
  map.leaf()[MapView::kBlocksPerPage / 64 + 3] = 1;
  EXPECT_FALSE(map.view().next_run(0, 16));
}

TEST(MapViewTest, BitsPastTheEndAreIgnored) {
  BitMap map(70);
  map.leaf()[1] = ~uint64_t{0};
  map.set(69);
  EXPECT_EQ(map.view().next_run(0, 1000), (BlockRun{64, 6}));
}

TEST(MapViewTest, RunsEqualTheSetBitsOfRandomMaps) {
  std::mt19937_64 random(7);
  for (int turn = 0; turn < 50; ++turn) {
    uint64_t nr_blocks = 1 + random() % (70 * MapView::kBlocksPerPage);
    BitMap map(nr_blocks);
    std::vector<uint64_t> expected;
    uint64_t block = random() % 5000;
    while (block < nr_blocks) {
      for (uint64_t length = 1 + random() % 200; length > 0 && block < nr_blocks; --length) {
        map.set(block);
        expected.push_back(block++);
      }
      block += 1 + random() % (turn % 2 ? 100'000 : 3'000'000);
    }
    EXPECT_EQ(blocks_by_runs(map.view(), 1 + random() % 300), expected) << "turn " << turn;
  }
}

}  // namespace
}  // namespace ferry::filter
