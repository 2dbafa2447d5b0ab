// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/owner_desk.h"

#include <gtest/gtest.h>

#include "daemon/test_store.h"

namespace ferry::daemon {
namespace {

using store::DiskRecord;
using store::Holding;

class OwnerDeskTest : public StoreTest {
 protected:
  void on_record(Holding holding, std::uint64_t generation) {
    std::vector<DiskRecord> disks;
    for (const auto& uuid : uuids_) {
      DiskRecord disk;
      disk.uuid = uuid;
      disk.path = "/dev/vg/" + uuid;
      disk.session = "s1";
      disk.holding = holding;
      disk.generation = generation;
      disks.push_back(disk);
    }
    auto put = store_->put({"s1", "web1", "a:7391", "a", false, {}}, disks);
    ASSERT_TRUE(put.ok()) << put.error().message();
  }
  void expect_all(Holding holding) {
    const auto disks = store_->disks();
    ASSERT_TRUE(disks.ok());
    for (const auto& disk : *disks) EXPECT_EQ(disk.holding, holding);
  }
  std::string ask(const std::string& question, std::uint64_t generation = 3) {
    return type_of(answer_from_records(*store_, "s1", to_json(OwnerQuestion{question, generation, uuids_})));
  }

  const std::vector<std::string> uuids_{"8a1a5f0e-7c1e-4a7e-9b1d-0123456789a0", "8a1a5f0e-7c1e-4a7e-9b1d-0123456789a1"};
};

TEST_F(OwnerDeskTest, RevokesOnRecordBeforeItSaysSo) {
  on_record(Holding::prepared, 3);
  EXPECT_EQ(ask("revoke"), "revoked");
  expect_all(Holding::revoked);
  EXPECT_EQ(ask("revoke"), "revoked") << "asked again, the answer having been lost";
}

TEST_F(OwnerDeskTest, KeepsWhatItOpened) {
  on_record(Holding::owned, 3);
  EXPECT_EQ(ask("revoke"), "opened");
  EXPECT_EQ(ask("return"), "error");
  expect_all(Holding::owned);
}

TEST_F(OwnerDeskTest, RemembersThatItGaveBack) {
  on_record(Holding::given, 4);
  EXPECT_EQ(ask("revoke"), "returned");
  EXPECT_EQ(ask("return"), "returned");
}

TEST_F(OwnerDeskTest, SaysWhenItHasNoMemory) {
  EXPECT_EQ(ask("revoke"), "unknown");
  on_record(Holding::owned, 2);
  EXPECT_EQ(ask("revoke"), "unknown") << "a promise of generation 3 would be on record";
}

TEST_F(OwnerDeskTest, RefusesWhatIsNoQuestion) {
  on_record(Holding::prepared, 3);
  EXPECT_EQ(type_of(answer_from_records(*store_, "s1", plain_message("grant"))), "error");
  EXPECT_EQ(type_of(answer_from_records(*store_, "s1", plain_message("revoke"))), "error");
  expect_all(Holding::prepared);
}

}  // namespace
}  // namespace ferry::daemon
