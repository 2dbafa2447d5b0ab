// SPDX-License-Identifier: GPL-2.0-or-later
// Owners over a real store; volumes and jobs are played.
#include "daemon/owners.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <map>
#include <set>
#include <stdexcept>

namespace ferry::daemon {
namespace {

using store::DiskRecord;
using store::Holding;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kRoot = "/dev/vg/web1";
constexpr const char* kSwap = "/dev/vg/web1-swap";

store::OwnershipStore open_store(const std::string& directory) {
  auto store = store::OwnershipStore::open(directory + "/ownership.db");
  if (!store) throw std::runtime_error(store.error().message());
  return std::move(*store);
}

std::string new_directory() {
  std::string name = testing::TempDir() + "ferry-owners-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no directory");
  return name;
}

class OwnersTest : public testing::Test {
 protected:
  OwnersTest() : directory_(new_directory()), store_(open_store(directory_)), owners_("hosta", store_, ports()) {}
  ~OwnersTest() override { std::filesystem::remove_all(directory_); }

  Owners::Ports ports() {
    Owners::Ports ports;
    ports.attached = [this] { return attached_; };
    ports.identify = [this](const std::string& path) -> Result<volume::VolumeInfo> {
      const auto found = volumes_.find(path);
      if (found == volumes_.end()) return make_error(Errc::not_found, "no " + path);
      return found->second;
    };
    ports.closed = [this](const DiskRecord& disk) { return closed_.contains(disk.path); };
    ports.unbar = [this](const DiskRecord& disk) -> Status {
      // Whatever opens a volume, its record must not forbid it any more.
      const auto record = store_.by_path(disk.path);
      EXPECT_TRUE(record && (!*record || !store::is_barred((*record)->holding))) << disk.path;
      unbarred_.push_back(disk.path);
      if (const auto bad = stuck_.find(disk.path); bad != stuck_.end()) return bad->second;
      closed_.erase(disk.path);
      return ok_status();
    };
    ports.remove = [this](const DiskRecord& disk) -> Status {
      removed_.push_back(disk.path);
      closed_.erase(disk.path);
      return ok_status();
    };
    ports.job_runs = [this](const std::string& session) { return running_.contains(session); };
    ports.force_job = [this](const std::string& session) -> Status {
      forced_.push_back(session);
      return force_answer_;
    };
    return ports;
  }

  void add_volume(const std::string& path, dev_t device) {
    volume::VolumeInfo info;
    info.path = path;
    info.dm_name = path;
    info.id = "LVM-" + path;
    info.device = device;
    volumes_[path] = info;
  }

  // Two disks of web1, held like this, closed if they have to be.
  void hold(Holding holding, bool outgoing = true, bool verified = true) {
    put({"s1", "web1", "hostb:7391", "hostb", outgoing, ""}, {{kRoot, holding}, {kSwap, holding}}, verified);
  }
  void put(const store::SessionRecord& session, const std::vector<std::pair<std::string, Holding>>& held,
           bool verified = true) {
    std::vector<DiskRecord> disks;
    for (const auto& [path, holding] : held) {
      DiskRecord disk;
      disk.uuid = "uuid of " + path;
      disk.generation = 2;
      disk.holding = holding;
      disk.session = session.id;
      disk.target = disks.empty() ? "vda" : "vdb";
      disk.path = path;
      disk.volume_id = "LVM-" + path;
      disk.role = disks.empty() ? "data" : "swap";
      disk.size_bytes = 1 << 20;
      disk.verified = verified;
      disk.reason = "as the test wants it";
      disks.push_back(disk);
      if (!volumes_.contains(path)) add_volume(path, volumes_.size() + 1);
      if (store::is_barred(holding)) closed_.insert(path);
    }
    const auto done = store_.put(session, disks);
    ASSERT_TRUE(done.ok()) << done.error().message();
  }

  std::vector<DiskRecord> records() { return *store_.disks(); }
  Error force_error(const api::ForceBody& body) {
    auto done = owners_.force(body);
    EXPECT_FALSE(done.ok());
    return done.ok() ? Error{} : done.error();
  }
  Error release_error(const api::ReleaseBody& body) {
    auto done = owners_.release(body);
    EXPECT_FALSE(done.ok());
    return done.ok() ? Error{} : done.error();
  }
  void expect_untouched(Holding holding) {
    EXPECT_THAT(unbarred_, IsEmpty());
    ASSERT_EQ(records().size(), 2u);
    for (const auto& disk : records()) {
      EXPECT_EQ(disk.holding, holding);
      EXPECT_EQ(disk.generation, 2u);
    }
  }

  const std::string directory_;
  store::OwnershipStore store_;
  std::map<std::string, volume::VolumeInfo> volumes_;
  Result<std::vector<filter::AttachedVolume>> attached_ = std::vector<filter::AttachedVolume>{};
  std::set<std::string> closed_, running_;
  std::map<std::string, Error> stuck_;
  std::vector<std::string> unbarred_, removed_, forced_;
  Status force_answer_ = ok_status();
  Owners owners_;
};

// ---- look --------------------------------------------------------------------------------------

TEST_F(OwnersTest, NoRecordIsNoErrorAnUnknownNameIs) {
  auto list = owners_.list({});
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->host, "hosta");
  EXPECT_THAT(list->disks, IsEmpty());
  EXPECT_EQ(owners_.list({"web1", ""}).error().code, Errc::not_found);
  EXPECT_EQ(owners_.list({"", "/dev/vg/none"}).error().code, Errc::not_found);
  hold(Holding::given);
  EXPECT_EQ(owners_.list({"web2", ""}).error().code, Errc::not_found);
  EXPECT_EQ(owners_.list({"", "/dev/vg/none"}).error().code, Errc::not_found);
}

// An incomplete copy that was kept for a migration to go on with.
TEST_F(OwnersTest, ReleasingAKeptCopyRemovesItsVolume) {
  add_volume(kRoot, 1);
  add_volume(kSwap, 2);
  std::vector<DiskRecord> disks;
  for (const auto& path : {kRoot, kSwap}) {
    DiskRecord disk;
    disk.uuid = "uuid of " + std::string(path);
    disk.holding = Holding::given;
    disk.session = "s1";
    disk.path = path;
    disk.volume_id = "LVM-" + std::string(path);
    disk.created = path == kRoot;
    disk.expires_at = disk.created ? 1 : 0;
    disks.push_back(disk);
  }
  ASSERT_TRUE(store_.put({"s1", "web1", "hosta:7391", "hosta", false, ""}, disks).ok());
  EXPECT_EQ(force_error({{"web1", ""}, true}).code, Errc::busy) << "half a disk for a whole one";
  auto released = owners_.release({{"web1", ""}, false});
  ASSERT_TRUE(released.ok()) << released.error().message();
  EXPECT_THAT(removed_, testing::ElementsAre(kRoot));
  EXPECT_THAT(unbarred_, testing::ElementsAre(kSwap)) << "it was there before";
  EXPECT_THAT(records(), IsEmpty());
}

TEST_F(OwnersTest, ShowsWhatIsOnRecordAndWhatTheVolumeDoes) {
  hold(Holding::given);
  closed_.erase(kSwap);
  filter::AttachedVolume attached;
  attached.name = kRoot;
  attached.tracker.emplace();
  attached.tracker->state = FERRY_STATE_FENCED;
  attached_ = std::vector{attached};
  auto list = owners_.list({"web1", ""});
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->disks.size(), 2u);
  const auto& root = list->disks[0];
  EXPECT_EQ(root.target, "vda");
  EXPECT_EQ(root.holding, "given");
  EXPECT_EQ(root.generation, 2u);
  EXPECT_EQ(root.owner, api::DiskOwner::peer);
  EXPECT_EQ(root.owner_host, "hostb");
  EXPECT_EQ(root.peer, "hostb:7391");
  EXPECT_EQ(root.reason, "as the test wants it");
  EXPECT_EQ(root.session, "s1");
  EXPECT_GT(*root.since, api::Time{});
  EXPECT_EQ(root.filter, "fenced");
  EXPECT_TRUE(root.must_be_barred);
  EXPECT_EQ(root.barred, true);
  const auto& swap = list->disks[1];
  EXPECT_EQ(swap.role, api::DiskRole::swap);
  EXPECT_FALSE(swap.filter);
  EXPECT_TRUE(swap.must_be_barred);
  EXPECT_EQ(swap.barred, false);
}

TEST_F(OwnersTest, SaysWhoOwnsForEachHolding) {
  const std::map<Holding, api::DiskOwner> wanted{
      {Holding::moving, api::DiskOwner::this_host}, {Holding::owned, api::DiskOwner::this_host},
      {Holding::granting, api::DiskOwner::unknown}, {Holding::prepared, api::DiskOwner::unknown},
      {Holding::given, api::DiskOwner::peer},       {Holding::receiving, api::DiskOwner::peer},
      {Holding::revoked, api::DiskOwner::peer}};
  for (const auto& [holding, owner] : wanted) {
    hold(holding);
    auto list = owners_.list({});
    ASSERT_TRUE(list.ok());
    const auto& disk = list->disks[0];
    EXPECT_EQ(disk.owner, owner) << disk.holding;
    EXPECT_EQ(disk.owner_host.has_value(), owner != api::DiskOwner::unknown) << disk.holding;
    EXPECT_EQ(disk.must_be_barred, store::is_barred(holding)) << disk.holding;
    if (owner == api::DiskOwner::unknown) {
      EXPECT_THAT(disk.owner_note, HasSubstr("hostb")) << disk.holding;
    }
  }
}

TEST_F(OwnersTest, APathMeansItsSessionUnderAnyName) {
  hold(Holding::given);
  put({"s2", "db1", "hostc:7391", "hostc", true, ""}, {{"/dev/vg/db1", Holding::given}});
  EXPECT_EQ(owners_.list({"", kSwap})->disks.size(), 2u);
  EXPECT_EQ(owners_.list({"", "/dev/vg/db1"})->disks.size(), 1u);
  EXPECT_EQ(owners_.list({})->disks.size(), 3u);
  auto other_name = volumes_[kSwap];
  volumes_["/dev/mapper/vg-web1--swap"] = other_name;
  EXPECT_EQ(owners_.list({"", "/dev/mapper/vg-web1--swap"})->disks.size(), 2u);
}

TEST_F(OwnersTest, AbsentAndReplacedVolumes) {
  hold(Holding::given);
  volumes_.erase(kRoot);
  volumes_[kSwap].id = "LVM-another";
  auto list = owners_.list({});
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->disks[0].volume, api::Presence::absent);
  EXPECT_EQ(list->disks[1].volume, api::Presence::replaced);
  for (const auto& disk : list->disks) EXPECT_FALSE(disk.barred || disk.filter);
}

TEST_F(OwnersTest, TheListComesWithoutTheFilterToo) {
  hold(Holding::given);
  attached_ = make_error(Errc::permission, "no device-mapper");
  auto list = owners_.list({});
  ASSERT_TRUE(list.ok());
  EXPECT_FALSE(list->disks[0].filter);
  EXPECT_EQ(list->disks[0].barred, true);
}

// ---- force -------------------------------------------------------------------------------------

TEST_F(OwnersTest, TheDefinitionIsTheSessions) {
  EXPECT_EQ(owners_.definition({"web1", ""}).error().code, Errc::not_found);
  hold(Holding::owned, false);
  EXPECT_EQ(owners_.definition({"web1", ""}).error().code, Errc::not_found) << "there was none to record";
  put({"s2", "web1", "hostb:7391", "hostb", false, "<domain/>"}, {{kRoot, Holding::owned}, {kSwap, Holding::owned}});
  auto known = owners_.definition({"", kSwap});
  ASSERT_TRUE(known) << known.error().message();
  EXPECT_EQ(known->xml, "<domain/>");
  EXPECT_EQ(known->session, "s2");
}

TEST_F(OwnersTest, ForceWithoutTheOperatorsWordTellsTheRiskAndChangesNothing) {
  for (const auto holding : {Holding::given, Holding::granting}) {
    hold(holding);
    const auto since = api::format_time(api::Time{std::chrono::seconds(records()[0].changed_at)});
    const auto error = force_error({{"web1", ""}, false});
    EXPECT_EQ(error.code, Errc::usage);
    EXPECT_THAT(error.what, AllOf(HasSubstr("hostb"), HasSubstr(since), HasSubstr("loses everything"),
                                  HasSubstr("two hosts write")));
    EXPECT_THAT(error.hint, HasSubstr("own --force web1 --peer-is-dead"));
    expect_untouched(holding);
    EXPECT_THAT(forced_, IsEmpty());
  }
}

TEST_F(OwnersTest, ForceTakesAllDisksOfTheSessionBack) {
  hold(Holding::given);
  const auto done = owners_.force({{"", kSwap}, true});
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_EQ(done->vm, "web1");
  EXPECT_THAT(done->paths, ElementsAre(kRoot, kSwap));
  EXPECT_EQ(done->generation, 3u);
  EXPECT_FALSE(done->job);
  EXPECT_THAT(unbarred_, ElementsAre(kRoot, kSwap));
  for (const auto& disk : records()) {
    EXPECT_EQ(disk.holding, Holding::owned);
    EXPECT_EQ(disk.generation, 3u);
    EXPECT_THAT(disk.reason, AllOf(HasSubstr("force"), HasSubstr("hostb")));
  }
  EXPECT_EQ(force_error({{"web1", ""}, true}).code, Errc::busy);  // ours already, and open
}

TEST_F(OwnersTest, ForceLeavesADisksJobToIt) {
  hold(Holding::granting);
  running_.insert("s1");
  const auto done = owners_.force({{"web1", ""}, true});
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_EQ(done->job, "s1");
  EXPECT_FALSE(done->generation);
  EXPECT_THAT(forced_, ElementsAre("s1"));
  expect_untouched(Holding::granting);
  force_answer_ = make_error(Errc::busy, "the peer has answered");
  EXPECT_EQ(force_error({{"web1", ""}, true}).what, "the peer has answered");
}

TEST_F(OwnersTest, ForceIsRefusedForWhatMayBeIncompleteOrPromised) {
  const std::map<Holding, std::string> why{{Holding::receiving, "incomplete"},
                                           {Holding::prepared, "has not granted"},
                                           {Holding::revoked, "promised"},
                                           {Holding::given, "incomplete"}};
  for (const auto& [holding, words] : why) {
    hold(holding, false);
    const auto error = force_error({{"web1", ""}, true});
    EXPECT_EQ(error.code, Errc::busy);
    EXPECT_THAT(error.what, HasSubstr(words)) << store::holding_name(holding);
    expect_untouched(holding);
  }
  put({"s1", "web1", "hostb:7391", "hostb", true, ""}, {{kRoot, Holding::given}, {kSwap, Holding::revoked}});
  EXPECT_THAT(force_error({{"web1", ""}, true}).what, HasSubstr("not held alike"));
  EXPECT_THAT(unbarred_, IsEmpty());
}

TEST_F(OwnersTest, ForceIsRefusedWhileTheJobRunsAndForAnotherVolume) {
  hold(Holding::given);
  running_.insert("s1");
  EXPECT_EQ(force_error({{"web1", ""}, true}).code, Errc::busy);
  running_.clear();
  volumes_[kSwap].id = "LVM-another";
  EXPECT_THAT(force_error({{"web1", ""}, true}).what, AllOf(HasSubstr(kSwap), HasSubstr("another volume")));
  expect_untouched(Holding::given);
}

TEST_F(OwnersTest, ForceThatWasCutShortGoesOn) {
  hold(Holding::given);
  stuck_[kSwap] = make_error(Errc::busy, "somebody has it", 0, "end that");
  const auto error = force_error({{"web1", ""}, true});
  EXPECT_THAT(error.what, AllOf(HasSubstr("on record as this host's"), HasSubstr(kSwap), HasSubstr("somebody")));
  EXPECT_THAT(error.hint, AllOf(HasSubstr("end that"), HasSubstr("own --force")));
  EXPECT_EQ(records()[1].holding, Holding::owned);
  stuck_.clear();
  unbarred_.clear();
  // Nothing is at stake any more, so it needs no word.
  const auto done = owners_.force({{"web1", ""}, false});
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_EQ(done->generation, 3u);
  EXPECT_THAT(unbarred_, ElementsAre(kSwap));
}

TEST_F(OwnersTest, ForceOfDisksThatAreOursIsRefusedWhileTheyMove) {
  hold(Holding::moving);
  closed_.insert(kRoot);
  running_.insert("s1");
  EXPECT_THAT(force_error({{"web1", ""}, true}).hint, HasSubstr("abort"));
  expect_untouched(Holding::moving);
}

TEST_F(OwnersTest, AVmWithTwoSessionsHasToBeNamedByAVolume) {
  hold(Holding::given);
  put({"s0", "web1", "hostc:7391", "hostc", true, ""}, {{"/dev/vg/old", Holding::given}});
  const auto error = force_error({{"web1", ""}, true});
  EXPECT_EQ(error.code, Errc::usage);
  EXPECT_THAT(error.hint, AllOf(HasSubstr("/dev/vg/old"), HasSubstr(kRoot)));
  EXPECT_EQ(release_error({{"web1", ""}, true}).code, Errc::usage);
  EXPECT_THAT(unbarred_, IsEmpty());
  ASSERT_TRUE(owners_.force({{"", kRoot}, true}).ok());
  EXPECT_EQ((*store_.by_path("/dev/vg/old"))->holding, Holding::given);
}

// ---- release -----------------------------------------------------------------------------------

TEST_F(OwnersTest, ReleaseForgetsAndOpens) {
  hold(Holding::given);
  const auto done = owners_.release({{"web1", ""}, false});
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_EQ(done->vm, "web1");
  EXPECT_THAT(done->paths, ElementsAre(kRoot, kSwap));
  EXPECT_THAT(unbarred_, ElementsAre(kRoot, kSwap));
  EXPECT_THAT(records(), IsEmpty());
  EXPECT_EQ(release_error({{"web1", ""}, false}).code, Errc::not_found);
}

TEST_F(OwnersTest, ReleaseWantsEqualDigestsOrTheOperatorsWord) {
  hold(Holding::given, true, false);
  const auto error = release_error({{"web1", ""}, false});
  EXPECT_EQ(error.code, Errc::verify_mismatch);
  EXPECT_THAT(error.hint, HasSubstr("release web1 --unverified"));
  expect_untouched(Holding::given);
  EXPECT_TRUE(owners_.release({{"", kRoot}, true}).ok());
  EXPECT_THAT(records(), IsEmpty());
}

TEST_F(OwnersTest, ReleaseOfACalledOffArrivalNeedsNoDigests) {
  put({"s1", "web1", "hostb:7391", "hostb", false, ""}, {{kRoot, Holding::given}, {kSwap, Holding::revoked}}, false);
  closed_ = {kRoot};  // the other was plain before, and is
  const auto done = owners_.release({{"web1", ""}, false});
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_THAT(unbarred_, ElementsAre(kRoot));
  EXPECT_THAT(records(), IsEmpty());
}

TEST_F(OwnersTest, ReleaseIsRefusedForEverythingElse) {
  for (const auto holding :
       {Holding::moving, Holding::owned, Holding::granting, Holding::receiving, Holding::prepared}) {
    hold(holding);
    const auto error = release_error({{"web1", ""}, true});
    EXPECT_EQ(error.code, holding == Holding::granting ? Errc::owner_unknown : Errc::busy);
    EXPECT_FALSE(error.hint.empty());
    if (holding == Holding::granting) {
      EXPECT_THAT(error.hint, HasSubstr("migrate-ctl own web1"));
    }
    expect_untouched(holding);
  }
  hold(Holding::given);
  running_.insert("s1");
  EXPECT_EQ(release_error({{"web1", ""}, true}).code, Errc::busy);
  expect_untouched(Holding::given);
}

TEST_F(OwnersTest, ReleaseThatCannotOpenAVolumeKeepsItsRecord) {
  hold(Holding::given);
  stuck_[kRoot] = make_error(Errc::busy, "somebody has it");
  const auto error = release_error({{"web1", ""}, false});
  EXPECT_THAT(error.what, AllOf(HasSubstr("1 of 2"), HasSubstr("somebody has it")));
  ASSERT_EQ(records().size(), 1u);
  EXPECT_EQ(records()[0].path, kRoot);
  EXPECT_EQ(records()[0].holding, Holding::given);
  stuck_.clear();
  EXPECT_TRUE(owners_.release({{"web1", ""}, false}).ok());
  EXPECT_THAT(records(), IsEmpty());
}

TEST_F(OwnersTest, ReleaseOfAVolumeThatIsGoneForgetsIt) {
  hold(Holding::given);
  stuck_[kRoot] = make_error(Errc::not_found, "no such volume");
  EXPECT_TRUE(owners_.release({{"web1", ""}, false}).ok());
  EXPECT_THAT(records(), IsEmpty());
}

TEST_F(OwnersTest, ReleaseWithoutARecordWantsTheOperatorsWord) {
  add_volume(kRoot, 7);
  EXPECT_EQ(release_error({{"", kRoot}, true}).code, Errc::not_found);  // nothing closes it
  closed_.insert(kRoot);
  const auto error = release_error({{"", kRoot}, false});
  EXPECT_EQ(error.code, Errc::owner_unknown);
  EXPECT_THAT(error.hint, HasSubstr("--unverified"));
  EXPECT_THAT(unbarred_, IsEmpty());
  const auto done = owners_.release({{"", kRoot}, true});
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_EQ(done->vm, "");
  EXPECT_THAT(unbarred_, ElementsAre(kRoot));
  EXPECT_EQ(release_error({{"", "/dev/vg/none"}, true}).code, Errc::not_found);
}

}  // namespace
}  // namespace ferry::daemon
