// SPDX-License-Identifier: GPL-2.0-or-later
#include "migration/ownership.h"

#include <gtest/gtest.h>

namespace ferry::migration {
namespace {

using store::DiskRecord;
using store::Holding;

DiskRecord record(std::uint64_t generation, Holding holding, const std::string& session = "s1") {
  DiskRecord disk;
  disk.generation = generation;
  disk.holding = holding;
  disk.session = session;
  return disk;
}

TEST(Ownership, TellsWhatBecameOfAGrant) {
  const auto fate = [](const DiskRecord& disk) { return fate_of(disk, "s1", 5); };
  EXPECT_EQ(fate_of(std::optional<DiskRecord>{}, "s1", 5), GrantFate::unknown);
  EXPECT_EQ(fate(record(4, Holding::owned)), GrantFate::unknown);
  EXPECT_EQ(fate(record(5, Holding::receiving)), GrantFate::open);
  EXPECT_EQ(fate(record(5, Holding::prepared)), GrantFate::open);
  EXPECT_EQ(fate(record(5, Holding::owned)), GrantFate::opened);
  EXPECT_EQ(fate(record(5, Holding::revoked)), GrantFate::revoked);
  EXPECT_EQ(fate(record(5, Holding::given)), GrantFate::revoked);
  EXPECT_EQ(fate(record(6, Holding::given)), GrantFate::returned);
  EXPECT_EQ(fate(record(6, Holding::given, "s2")), GrantFate::opened) << "owned, then moved on";
  EXPECT_EQ(fate(record(5, Holding::owned, "s2")), GrantFate::unknown) << "another session's claim";
}

TEST(Ownership, DisksOfASessionMustAgree) {
  EXPECT_EQ(fate_of(std::vector<DiskRecord>{}, "s1", 5), GrantFate::unknown);
  EXPECT_EQ(fate_of(std::vector{record(5, Holding::owned), record(5, Holding::owned)}, "s1", 5), GrantFate::opened);
  EXPECT_EQ(fate_of(std::vector{record(5, Holding::owned), record(5, Holding::revoked)}, "s1", 5), GrantFate::unknown);
}

TEST(Ownership, GenerationsOnlyGrow) {
  EXPECT_LT(5u, granted_generation(5));
  EXPECT_LT(granted_generation(5), reclaimed_generation(5));
}

}  // namespace
}  // namespace ferry::migration
