// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/session_ledger.h"

#include <gtest/gtest.h>

#include <ctime>
#include <future>

#include "daemon/kept_copies.h"
#include "daemon/test_store.h"

namespace ferry::daemon {
namespace {

using store::DiskRecord;
using store::Holding;

const std::string kUuid = "8a1a5f0e-7c1e-4a7e-9b1d-0123456789a0";

DiskRecord disk_of(const std::string& uuid = kUuid) {
  DiskRecord disk;
  disk.uuid = uuid;
  disk.target = "vda";
  disk.path = "/dev/vg/web1";
  disk.volume_id = "LVM-1";
  disk.role = "data";
  return disk;
}

class SessionLedgerTest : public StoreTest {
 protected:
  // The destination's record of a disk it made, at the end of these.
  DiskRecord incoming(bool keeps, std::uint64_t keep_s, std::initializer_list<Holding> holdings, bool created = true) {
    auto disk = disk_of();
    disk.created = created;
    std::promise<void> done;
    std::size_t left = holdings.size();
    {
      SessionLedger ledger(*store_, {"s1", "web1", "a:7391", "a", false, {}}, {disk}, 4, [&](Status s) {
        if (!s) ADD_FAILURE() << s.error().message();
        if (--left == 0) done.set_value();
      });
      ledger.set_keeping([keeps, &disk] { return keeps ? std::set{disk.target} : std::set<std::string>(); }, keep_s);
      ledger.set_trackers({{disk.target, "tracker"}});
      for (auto holding : holdings) ledger.record(holding);
      done.get_future().get();
    }
    return **store_->by_uuid(kUuid);
  }
  // Records one after the other; the last generation that is then in the store.
  std::uint64_t after(bool outgoing, std::uint64_t base, std::initializer_list<Holding> holdings,
                      Holding before = Holding::owned) {
    std::promise<Status> done;
    auto disk = disk_of();
    disk.holding = before;
    SessionLedger ledger(*store_, {"s1", "web1", "b:7391", "b", outgoing, {}}, {disk}, base, [&](Status s) {
      if (!s) ADD_FAILURE() << s.error().message();
      if (++answers_ == wanted_) done.set_value(std::move(s));
    });
    answers_ = 0;
    wanted_ = holdings.size();
    for (auto holding : holdings) ledger.record(holding);
    (void)done.get_future().get();
    auto record = store_->by_uuid(kUuid);
    last_ = (*record)->holding;
    return (*record)->generation;
  }
  void put(Holding holding, std::uint64_t generation, const std::string& uuid = kUuid) {
    auto disk = disk_of(uuid);
    disk.session = "s0";
    disk.holding = holding;
    disk.generation = generation;
    ASSERT_TRUE(store_->put({"s0", "web1", "b:7391", "b", true, {}}, {disk}).ok());
  }
  PrepareRequest offer(std::uint64_t generation, const std::string& uuid = kUuid) {
    PrepareRequest request;
    request.vm = "web1";
    request.generation = generation;
    request.disks.push_back({0, "vda", "/dev/vg/web1", "data", 4096, 512, uuid});
    return request;
  }

  std::size_t answers_ = 0, wanted_ = 0;
  Holding last_ = Holding::owned;
};

TEST_F(SessionLedgerTest, CountsTheChangesOfOwner) {
  EXPECT_EQ(after(true, 4, {Holding::moving}), 4u);
  EXPECT_EQ(after(true, 4, {Holding::moving, Holding::owned}), 4u) << "never granted";
  EXPECT_EQ(after(true, 4, {Holding::moving, Holding::granting}), 5u);
  EXPECT_EQ(after(true, 4, {Holding::granting, Holding::given}), 5u);
}

TEST_F(SessionLedgerTest, TakingBackAGrantIsAChangeToo) {
  EXPECT_EQ(after(true, 4, {Holding::moving, Holding::granting, Holding::owned}), 6u);
}

TEST_F(SessionLedgerTest, DestinationOwnsWhatWasGranted) {
  EXPECT_EQ(after(false, 4, {Holding::receiving, Holding::prepared, Holding::owned}), 5u);
  EXPECT_EQ(after(false, 4, {Holding::given}), 6u) << "given back";
}

TEST_F(SessionLedgerTest, OldCopyRemainsClosedWhenCalledOff) {
  EXPECT_EQ(after(false, 4, {Holding::receiving, Holding::revoked}, Holding::given), 5u);
  EXPECT_EQ(last_, Holding::given);
}

TEST_F(SessionLedgerTest, WhatIsKeptIsClosedUntilItsTimeIsOver) {
  const auto kept = incoming(true, 3600, {Holding::receiving, Holding::revoked});
  EXPECT_EQ(kept.holding, Holding::given);
  EXPECT_TRUE(store::is_barred(kept.holding));
  EXPECT_TRUE(is_kept_copy(kept));
  EXPECT_NEAR(static_cast<double>(kept.expires_at - std::time(nullptr)), 3600, 60);
}

TEST_F(SessionLedgerTest, WhatIsNotKeptIsNobodys) {
  const auto gone = incoming(false, 3600, {Holding::receiving, Holding::revoked});
  EXPECT_EQ(gone.holding, Holding::revoked);
  EXPECT_FALSE(is_kept_copy(gone));
}

TEST_F(SessionLedgerTest, AVolumeThatWasThereBeforeNeverExpires) {
  const auto kept = incoming(true, 3600, {Holding::receiving, Holding::revoked}, /*created=*/false);
  EXPECT_EQ(kept.holding, Holding::given);
  EXPECT_FALSE(is_kept_copy(kept)) << "half of it is overwritten, but it is not ours to remove";
}

// The old copy of one disk is kept closed; a volume that was only meant to take another disk in may be in use.
TEST_F(SessionLedgerTest, OnlyWhatIsKeptIsClosed) {
  auto old_copy = disk_of(), stranger = disk_of("8a1a5f0e-7c1e-4a7e-9b1d-0123456789a1");
  stranger.target = "vdb";
  stranger.path = "/dev/vg/other";
  stranger.volume_id = "LVM-2";
  std::promise<void> done;
  {
    SessionLedger ledger(*store_, {"s1", "web1", "a:7391", "a", false, {}}, {old_copy, stranger}, 4, [&](Status s) {
      EXPECT_TRUE(s.ok());
      done.set_value();
    });
    ledger.set_keeping([] { return std::set<std::string>{"vda"}; }, 3600);
    ledger.record(Holding::revoked);
    done.get_future().get();
  }
  EXPECT_EQ((*store_->by_uuid(old_copy.uuid))->holding, Holding::given);
  EXPECT_EQ((*store_->by_uuid(stranger.uuid))->holding, Holding::revoked);
}

TEST_F(SessionLedgerTest, ARestartLearnsFromTheRecordWhetherToKeep) {
  EXPECT_NE(incoming(true, 3600, {Holding::receiving}).expires_at, 0);
  EXPECT_EQ(incoming(true, 0, {Holding::receiving}).expires_at, 0);
}

TEST_F(SessionLedgerTest, WhatIsOwnedNeitherExpiresNorLosesItsTracker) {
  const auto owned = incoming(true, 3600, {Holding::receiving, Holding::prepared, Holding::owned});
  EXPECT_EQ(owned.holding, Holding::owned);
  EXPECT_EQ(owned.expires_at, 0);
  EXPECT_EQ(owned.tracker, "tracker");
  EXPECT_EQ(incoming(true, 3600, {Holding::prepared}).tracker, "") << "not ours yet";
}

// A way back that is called off before it has touched the map can be begun again with it; afterwards not.
TEST_F(SessionLedgerTest, AFilterThatWasThereStaysOnRecordUntilItIsTakenOver) {
  std::promise<void> half, done;
  SessionLedger ledger(*store_, {"s1", "web1", "b:7391", "b", true, {}}, {disk_of()}, 4, [&, n = 0](Status s) mutable {
    if (!s) ADD_FAILURE() << s.error().message();
    if (++n == 2) half.set_value();
    if (n == 3) done.set_value();
  });
  ledger.set_trackers({{disk_of().target, "tracker"}});
  ledger.record(Holding::moving);
  ledger.record(Holding::owned);
  half.get_future().get();
  EXPECT_EQ((*store_->by_uuid(kUuid))->tracker, "tracker");
  ledger.set_trackers({});
  ledger.record(Holding::owned);
  done.get_future().get();
  EXPECT_EQ((*store_->by_uuid(kUuid))->tracker, "");
}

// The source may still have to ask who owns the disk.
TEST_F(SessionLedgerTest, ARemovedCopyLeavesThePromise) {
  const auto kept = incoming(true, 3600, {Holding::receiving, Holding::revoked});
  ASSERT_TRUE(is_kept_copy(kept));
  auto removed = remove_kept_copy(*store_, kept);
  ASSERT_TRUE(removed.ok()) << removed.error().message();
  const auto left = store_->by_uuid(kUuid);
  ASSERT_TRUE(left.ok() && *left);
  EXPECT_EQ((*left)->holding, Holding::revoked);
  EXPECT_EQ((*left)->session, "s1");
  EXPECT_EQ((*left)->expires_at, 0);
}

// The first write into an old copy makes its digest a lie.
TEST_F(SessionLedgerTest, AnOldCopysDigestGoesBeforeItIsWritten) {
  auto disk = disk_of();
  disk.session = "s0";
  disk.holding = Holding::given;
  disk.generation = 4;
  disk.digest = "00ff";
  ASSERT_TRUE(store_->put({"s0", "web1", "b:7391", "b", true, {}}, {disk}).ok());
  EXPECT_EQ(incoming(true, 0, {Holding::receiving}).digest, "");
}

TEST_F(SessionLedgerTest, OnlyTheOwnerMayMoveADisk) {
  std::vector<DiskRecord> disks{disk_of({})};
  auto fresh = base_generation(*store_, disks);
  ASSERT_TRUE(fresh.ok());
  EXPECT_EQ(*fresh, 0u);
  EXPECT_EQ(disks[0].uuid.size(), 36u);
  put(Holding::owned, 7);
  auto known = base_generation(*store_, disks);
  ASSERT_TRUE(known.ok());
  EXPECT_EQ(*known, 7u);
  EXPECT_EQ(disks[0].uuid, kUuid);
  for (auto holding : {Holding::granting, Holding::given, Holding::receiving, Holding::prepared}) {
    put(holding, 7);
    auto refused = base_generation(*store_, disks);
    ASSERT_FALSE(refused.ok()) << store::holding_name(holding);
    EXPECT_EQ(refused.error().code, Errc::busy);
  }
  disks[0].volume_id = "LVM-2";  // the path was given to another volume
  EXPECT_TRUE(base_generation(*store_, disks).ok());
  EXPECT_NE(disks[0].uuid, kUuid);
}

// By whatever name: LVM renames volumes, and has several paths for each.
TEST_F(SessionLedgerTest, AVolumeIsKnownUnderAnotherPath) {
  put(Holding::owned, 7);
  std::vector<DiskRecord> disks{disk_of({})};
  disks[0].path = "/dev/mapper/vg-web1";
  auto known = base_generation(*store_, disks);
  ASSERT_TRUE(known.ok());
  EXPECT_EQ(*known, 7u);
  EXPECT_EQ(disks[0].uuid, kUuid);
  put(Holding::given, 8);
  EXPECT_FALSE(base_generation(*store_, disks).ok());
}

// Two records of one volume: who owns it is decided against us.
TEST_F(SessionLedgerTest, AClaimOfAnotherHostCountsMoreThanOurs) {
  put(Holding::given, 7);
  auto twin = disk_of("8a1a5f0e-7c1e-4a7e-9b1d-0123456789a1");
  twin.path = "/dev/mapper/vg-web1";
  twin.session = "s1";
  twin.holding = Holding::owned;
  ASSERT_TRUE(store_->put({"s1", "web1", "b:7391", "b", true, {}}, {twin}).ok());
  std::vector<DiskRecord> disks{disk_of({})};
  EXPECT_FALSE(base_generation(*store_, disks).ok());
}

TEST_F(SessionLedgerTest, StaleSourceIsTurnedAway) {
  EXPECT_TRUE(may_take_in(*store_, offer(1)).ok());
  put(Holding::given, 7);
  EXPECT_TRUE(may_take_in(*store_, offer(8)).ok());
  EXPECT_FALSE(may_take_in(*store_, offer(7)).ok());
  EXPECT_FALSE(may_take_in(*store_, offer(6)).ok());
  put(Holding::owned, 8);
  EXPECT_FALSE(may_take_in(*store_, offer(9)).ok()) << "two hosts claim it";
}

TEST_F(SessionLedgerTest, FailedAttemptMayBeRepeated) {
  for (auto holding : {Holding::revoked, Holding::given}) {
    auto disk = disk_of();
    disk.session = "s0";
    disk.holding = holding;
    disk.generation = 1;
    ASSERT_TRUE(store_->put({"s0", "web1", "b:7391", "b", false, {}}, {disk}).ok());
    EXPECT_TRUE(may_take_in(*store_, offer(1)).ok()) << store::holding_name(holding);
  }
  EXPECT_TRUE(may_take_in(*store_, offer(1)).ok());
  EXPECT_FALSE(may_take_in(*store_, offer(0)).ok());
}

}  // namespace
}  // namespace ferry::daemon
