// SPDX-License-Identifier: GPL-2.0-or-later
// Dirty maps against a plain std::vector<bool>, at every size where rounding could go wrong.
extern "C" {
#include "map.h"
}

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t kWord = 64;
constexpr uint64_t kPage = FERRY_PAGE_BITS;

// A map with canaries around it: writing outside of leaf and summary is noticed.
class Map {
 public:
  explicit Map(uint64_t nr_blocks) {
    ferry_geometry_init(&geo, nr_blocks);
    words_.assign((geo.leaf_bytes + geo.sum_bytes) / sizeof(unsigned long) + 2, 0);
    words_.front() = words_.back() = kCanary;
  }
  ~Map() {
    EXPECT_EQ(words_.front(), kCanary);
    EXPECT_EQ(words_.back(), kCanary);
  }
  Map(const Map&) = delete;

  unsigned long* bits() { return words_.data() + 1; }
  uint64_t mark(uint64_t first, uint64_t nr) { return ferry_map_mark(&geo, bits(), first, nr); }
  bool test(uint64_t block) { return ferry_map_test(bits(), block); }
  bool summary(uint64_t page) { return ferry_map_test(bits() + ferry_map_sum_word(&geo), page); }
  uint64_t count() { return ferry_map_count(&geo, bits()); }
  uint64_t next(uint64_t from) { return ferry_map_next(&geo, bits(), from); }

  bool all_zero() const {
    for (size_t i = 1; i + 1 < words_.size(); ++i)
      if (words_[i]) return false;
    return true;
  }

  ferry_geometry geo{};

 private:
  static constexpr unsigned long kCanary = 0xfe44fe44fe44fe44UL;
  std::vector<unsigned long> words_;
};

class MapOfSize : public testing::TestWithParam<uint64_t> {};

INSTANTIATE_TEST_SUITE_P(Sizes, MapOfSize,
                         testing::Values(1, 2, kWord - 1, kWord, kWord + 1, 10 * kWord,
                                         10 * kWord + 1, kPage - 1, kPage, kPage + 1, 3 * kPage,
                                         3 * kPage + 1, 3 * kPage + kWord, 3 * kPage + kWord + 1));

TEST_P(MapOfSize, GeometryHoldsAllBitsInWholePages) {
  Map map(GetParam());
  EXPECT_EQ(map.geo.leaf_bytes % FERRY_MAP_PAGE, 0u);
  EXPECT_EQ(map.geo.sum_bytes % FERRY_MAP_PAGE, 0u);
  EXPECT_GE(map.geo.leaf_bytes * 8, GetParam());
  EXPECT_LT(map.geo.leaf_bytes * 8, GetParam() + kPage);
  EXPECT_GE(map.geo.sum_bytes * 8, map.geo.nr_pages);
}

TEST_P(MapOfSize, FullRangeIsCountedExactly) {
  Map map(GetParam());
  EXPECT_EQ(map.mark(0, GetParam()), GetParam());
  EXPECT_EQ(map.count(), GetParam());
  EXPECT_EQ(map.mark(0, GetParam()), 0u);
  EXPECT_EQ(map.next(GetParam() - 1), GetParam() - 1);
  ferry_map_clear(&map.geo, map.bits());
  EXPECT_TRUE(map.all_zero());
}

TEST_P(MapOfSize, LastBlockAlone) {
  Map map(GetParam());
  const uint64_t last = GetParam() - 1;
  EXPECT_EQ(map.next(0), GetParam());
  EXPECT_EQ(map.mark(last, 1), 1u);
  EXPECT_EQ(map.next(0), last);
  EXPECT_EQ(map.count(), 1u);
  EXPECT_TRUE(map.summary(last / kPage));
  if (last / kPage > 0) {
    EXPECT_FALSE(map.summary(0));
  }
}

TEST_P(MapOfSize, SingleBlocksAreMarkedAsRangesAre) {
  const uint64_t size = GetParam();
  Map singles(size), ranges(size);
  std::mt19937_64 random(size);
  for (int round = 0; round < 500; ++round) {
    const uint64_t block = random() % size;
    const bool newly = ferry_map_mark_one(&singles.geo, singles.bits(), block);
    ASSERT_EQ(newly, ranges.mark(block, 1) == 1) << block;
    ASSERT_TRUE(singles.test(block));
    ASSERT_TRUE(singles.summary(block / kPage));
  }
  EXPECT_EQ(singles.count(), ranges.count());
}

TEST_P(MapOfSize, RandomRangesMatchAModel) {
  const uint64_t size = GetParam();
  Map map(size);
  std::vector<bool> model(size);
  std::mt19937_64 random(size);
  for (int round = 0; round < 200; ++round) {
    const uint64_t first = random() % size;
    const uint64_t nr = 1 + random() % std::min<uint64_t>(size - first, 300);
    uint64_t newly = 0;
    for (uint64_t b = first; b < first + nr; ++b) {
      newly += !model[b];
      model[b] = true;
    }
    ASSERT_EQ(map.mark(first, nr), newly) << first << "+" << nr;
  }
  uint64_t from = 0;
  for (uint64_t b = 0; b < size; ++b) {
    ASSERT_EQ(map.test(b), model[b]) << b;
    if (model[b]) {
      ASSERT_EQ(map.next(from), b);
      from = b + 1;
    }
  }
  EXPECT_EQ(map.next(from), size);
}

TEST(Map, RangesThatCrossWordsAndPages) {
  for (uint64_t first : {kWord - 1, kWord, 2 * kWord - 3, kPage - 1, kPage - kWord, 2 * kPage - 2}) {
    for (uint64_t nr : {uint64_t{1}, uint64_t{2}, kWord - 1, kWord, kWord + 1, 3 * kWord + 7,
                        kPage, kPage + 1}) {
      Map map(5 * kPage);
      ASSERT_EQ(map.mark(first, nr), nr) << first << "+" << nr;
      ASSERT_EQ(map.count(), nr);
      ASSERT_FALSE(first > 0 && map.test(first - 1));
      ASSERT_TRUE(map.test(first));
      ASSERT_TRUE(map.test(first + nr - 1));
      ASSERT_FALSE(map.test(first + nr));
      for (uint64_t page = 0; page < map.geo.nr_pages; ++page)
        ASSERT_EQ(map.summary(page), page >= first / kPage && page <= (first + nr - 1) / kPage);
    }
  }
}

TEST(Map, OnlyNewBitsAreCounted) {
  Map map(1000);
  EXPECT_EQ(map.mark(10, 20), 20u);
  EXPECT_EQ(map.mark(0, 100), 80u);
  EXPECT_EQ(map.mark(99, 2), 1u);
}

TEST(Map, MergeAddsAndCounts) {
  Map to(2 * kPage + 1), from(2 * kPage + 1);
  to.mark(0, 10);
  from.mark(5, 10);
  from.mark(2 * kPage, 1);
  EXPECT_EQ(ferry_map_merge(&to.geo, to.bits(), from.bits()), 6u);
  EXPECT_EQ(to.count(), 16u);
  EXPECT_TRUE(to.summary(2));
  EXPECT_FALSE(to.summary(1));
  EXPECT_EQ(to.next(15), 2 * kPage);
}

// Many threads mark overlapping ranges: every bit is set, every bit is counted once.
TEST(Map, ParallelMarkersCountEachBitOnce) {
  constexpr uint64_t kBlocks = 2 * kPage + 1;
  constexpr int kThreads = 8;
  for (int repeat = 0; repeat < 20; ++repeat) {
    Map map(kBlocks);
    std::vector<uint64_t> newly(kThreads);
    {
      std::vector<std::jthread> threads;
      for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
          std::mt19937_64 random(repeat * kThreads + t);
          for (uint64_t first = t; first < kBlocks; first += kThreads)
            if (random() % 2)
              newly[t] += ferry_map_mark_one(&map.geo, map.bits(), first);
            else
              newly[t] += map.mark(first, std::min<uint64_t>(1 + random() % 100, kBlocks - first));
        });
      }
    }
    uint64_t total = 0;
    for (uint64_t n : newly) total += n;
    ASSERT_EQ(total, kBlocks);
    ASSERT_EQ(map.count(), kBlocks);
  }
}

}  // namespace
