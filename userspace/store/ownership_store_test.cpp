// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/ownership_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <thread>

#include "store/sqlite.h"
#include "store/test_child.h"

namespace ferry::store {
namespace {

class OwnershipStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "ferry-store-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    ASSERT_EQ(::chmod(name.c_str(), 0755), 0);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string path() const { return directory_ + "/ownership.db"; }
  OwnershipStore open() {
    auto store = OwnershipStore::open(path());
    if (!store) throw std::runtime_error(store.error().message());
    return std::move(*store);
  }
  void overwrite(std::streamoff offset, const std::string& bytes) {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset);
    file << bytes;
  }
  // What open() says of a file that it must refuse; it must not have changed a byte of it.
  Error refusal() {
    const auto before = contents();
    auto store = OwnershipStore::open(path());
    EXPECT_EQ(contents(), before);
    return store ? make_error(Errc::failed, "it was opened") : store.error();
  }
  std::string contents() const {
    std::ifstream file(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::string directory_;
};

SessionRecord session_of(const std::string& id) {
  return {id, "web1", "hostb:7391", "hostb", true, "<domain type='kvm'>\n <name>web1</name>é</domain>", "{\"job\":1}"};
}

DiskRecord disk_of(const std::string& session, int number, std::uint64_t generation = 1) {
  DiskRecord disk;
  disk.uuid = "00000000-0000-4000-8000-00000000000" + std::to_string(number);
  disk.generation = generation;
  disk.holding = Holding::granting;
  disk.session = session;
  disk.target = std::string("vd") + static_cast<char>('a' + number);
  disk.path = "/dev/vg/web1-" + std::to_string(number);
  disk.volume_id = "LVM-" + std::to_string(number);
  disk.role = number == 0 ? "data" : "swap";
  disk.size_bytes = std::uint64_t{5} << 40;
  disk.created = number == 1;
  disk.verified = number == 0;
  disk.digest = number == 0 ? "00ff" : "";
  disk.tracker = number == 0 ? "" : "tracker";
  disk.expires_at = number == 0 ? 0 : std::int64_t{1} << 40;
  disk.reason = "it's \"moving\"; DROP TABLE disk";
  return disk;
}

TEST_F(OwnershipStoreTest, EverythingComesBackAfterReopening) {
  const auto before = std::time(nullptr);
  {
    auto store = open();
    ASSERT_TRUE(store.put(session_of("s1"), {disk_of("s1", 0, 7), disk_of("s1", 1, 7)}).ok());
  }
  auto store = open();
  auto disks = store.disks();
  ASSERT_TRUE(disks.ok()) << disks.error().message();
  ASSERT_EQ(disks->size(), 2u);
  for (int n = 0; n < 2; ++n) {
    const auto wanted = disk_of("s1", n, 7);
    const auto& disk = (*disks)[n];
    EXPECT_EQ(disk.uuid, wanted.uuid);
    EXPECT_EQ(disk.generation, 7u);
    EXPECT_EQ(disk.holding, Holding::granting);
    EXPECT_EQ(disk.session, "s1");
    EXPECT_EQ(disk.target, wanted.target);
    EXPECT_EQ(disk.path, wanted.path);
    EXPECT_EQ(disk.volume_id, wanted.volume_id);
    EXPECT_EQ(disk.role, wanted.role);
    EXPECT_EQ(disk.size_bytes, wanted.size_bytes);
    EXPECT_EQ(disk.created, wanted.created);
    EXPECT_EQ(disk.verified, wanted.verified);
    EXPECT_EQ(disk.reason, wanted.reason);
    EXPECT_EQ(disk.digest, wanted.digest);
    EXPECT_EQ(disk.tracker, wanted.tracker);
    EXPECT_EQ(disk.expires_at, wanted.expires_at);
    EXPECT_GE(disk.changed_at, before);
    EXPECT_LE(disk.changed_at, std::time(nullptr));
  }
  auto session = store.session("s1");
  ASSERT_TRUE(session.ok() && *session);
  const auto wanted = session_of("s1");
  EXPECT_EQ((*session)->vm, wanted.vm);
  EXPECT_EQ((*session)->peer, wanted.peer);
  EXPECT_EQ((*session)->peer_host, wanted.peer_host);
  EXPECT_TRUE((*session)->outgoing);
  EXPECT_EQ((*session)->domain_xml, wanted.domain_xml);
}

TEST_F(OwnershipStoreTest, LookUps) {
  auto store = open();
  ASSERT_TRUE(store.put(session_of("s1"), {disk_of("s1", 0)}).ok());
  ASSERT_TRUE(store.put(session_of("s2"), {disk_of("s2", 1), disk_of("s2", 2)}).ok());
  EXPECT_EQ((*store.by_uuid(disk_of("", 1).uuid))->session, "s2");
  EXPECT_EQ((*store.by_path("/dev/vg/web1-0"))->session, "s1");
  EXPECT_FALSE(store.by_uuid("no")->has_value());
  EXPECT_FALSE(store.by_path("/dev/vg/no")->has_value());
  EXPECT_FALSE(store.session("no")->has_value());
  EXPECT_EQ(store.of_session("s2")->size(), 2u);
  EXPECT_EQ(store.of_session("no")->size(), 0u);
  EXPECT_EQ(store.disks()->size(), 3u);
}

TEST_F(OwnershipStoreTest, EachHoldingIsKept) {
  auto store = open();
  for (Holding holding : {Holding::moving, Holding::granting, Holding::given, Holding::receiving, Holding::prepared,
                          Holding::owned, Holding::revoked}) {
    auto disk = disk_of("s1", 0);
    disk.holding = holding;
    ASSERT_TRUE(store.put(session_of("s1"), {disk}).ok());
    EXPECT_EQ((*store.by_uuid(disk.uuid))->holding, holding) << holding_name(holding);
  }
}

TEST_F(OwnershipStoreTest, ANewRecordReplacesThatOfItsDiskAndThatOfItsPath) {
  auto store = open();
  ASSERT_TRUE(store.put(session_of("s1"), {disk_of("s1", 0, 3), disk_of("s1", 1, 3)}).ok());
  auto again = disk_of("s2", 0, 3);
  again.holding = Holding::owned;
  auto stranger = disk_of("s2", 5, 1);  // another disk, in the volume of disk 1
  stranger.path = disk_of("", 1).path;
  ASSERT_TRUE(store.put(session_of("s2"), {again, stranger}).ok());
  auto disks = store.disks();
  ASSERT_EQ(disks->size(), 2u);
  EXPECT_EQ((*store.by_uuid(again.uuid))->holding, Holding::owned);
  EXPECT_EQ((*store.by_path(stranger.path))->uuid, stranger.uuid);
  EXPECT_FALSE(store.by_uuid(disk_of("", 1).uuid)->has_value());
  EXPECT_FALSE(store.session("s1")->has_value()) << "no disk refers to it any more";
}

TEST_F(OwnershipStoreTest, ALowerGenerationIsRefusedWithAllThatCameWithIt) {
  auto store = open();
  ASSERT_TRUE(store.put(session_of("s1"), {disk_of("s1", 0, 5)}).ok());
  auto status = store.put(session_of("s2"), {disk_of("s2", 1, 9), disk_of("s2", 0, 4)});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, Errc::busy);
  EXPECT_NE(status.error().message().find("generation 5"), std::string::npos) << status.error().message();
  EXPECT_EQ(store.disks()->size(), 1u);
  EXPECT_FALSE(store.session("s2")->has_value());
  EXPECT_TRUE(store.put(session_of("s2"), {disk_of("s2", 0, 5)}).ok()) << "the same generation may change its holding";
  EXPECT_TRUE(store.put(session_of("s2"), {disk_of("s2", 0, 6)}).ok());
}

TEST_F(OwnershipStoreTest, MalformedRequestsChangeNothing) {
  auto store = open();
  auto without_uuid = disk_of("s1", 0), without_path = disk_of("s1", 0), huge = disk_of("s1", 0);
  without_uuid.uuid.clear();
  without_path.path.clear();
  huge.generation = ~std::uint64_t{0};
  for (const auto& disks : std::vector<std::vector<DiskRecord>>{
           {disk_of("other", 0)}, {disk_of("s1", 0), disk_of("s1", 0)}, {without_uuid}, {without_path}, {huge}})
    EXPECT_EQ(store.put(session_of("s1"), disks).error().code, Errc::usage);
  EXPECT_EQ(store.put(session_of(""), {}).error().code, Errc::usage);
  EXPECT_EQ(store.disks()->size(), 0u);
}

TEST_F(OwnershipStoreTest, ForgettingTakesSessionsWithTheirLastDisk) {
  auto store = open();
  ASSERT_TRUE(store.put(session_of("s1"), {disk_of("s1", 0), disk_of("s1", 1)}).ok());
  ASSERT_TRUE(store.put(session_of("early"), {}).ok());
  ASSERT_TRUE(store.forget({disk_of("", 0).uuid, "unknown"}).ok());
  EXPECT_EQ(store.disks()->size(), 1u);
  EXPECT_TRUE(store.session("s1")->has_value());
  ASSERT_TRUE(store.forget({disk_of("", 1).uuid}).ok());
  EXPECT_EQ(store.disks()->size(), 0u);
  EXPECT_FALSE(store.session("s1")->has_value());
  EXPECT_TRUE(store.session("early")->has_value()) << "it never had a disk that could be forgotten";
}

TEST_F(OwnershipStoreTest, AKilledWriterLeavesAllOfAPutOrNothing) {
  std::uint64_t last = 0;
  for (int round = 0; round < 20; ++round) {
    // The writer tells each put that has returned, and is killed somewhere inside a later one.
    TestChild child([&](int report) {
      auto store = OwnershipStore::open(path());
      if (!store) return 1;
      for (std::uint64_t generation = last + 1;; ++generation) {
        if (!store->put(session_of("s1"), {disk_of("s1", 0, generation), disk_of("s1", 1, generation)})) return 2;
        if (::write(report, &generation, sizeof generation) != sizeof generation) return 3;
      }
    });
    std::uint64_t told = 0;
    for (int n = 0; n <= round; ++n) ASSERT_TRUE(child.read(told));
    child.kill();
    while (child.read(told)) continue;
    auto store = open();
    auto disks = store.disks();
    ASSERT_TRUE(disks.ok()) << disks.error().message();
    ASSERT_EQ(disks->size(), 2u);
    EXPECT_EQ((*disks)[0].generation, (*disks)[1].generation);
    EXPECT_GE((*disks)[0].generation, told) << "a put had returned and is gone";
    EXPECT_LE((*disks)[0].generation, told + 1);
    last = (*disks)[0].generation;
  }
}

// SQLite's writes of this process, until the one in whose middle it dies.
int writes_left = 0;
ssize_t dying_pwrite(int fd, const void* data, size_t size, off64_t offset) {
  if (writes_left-- > 0) return ::pwrite64(fd, data, size, offset);
  (void)!::pwrite64(fd, data, size / 2, offset);
  return ::raise(SIGKILL);
}

TEST_F(OwnershipStoreTest, DeathInsideAnyWriteOfAPutLeavesAllOrNothing) {
  auto put = [](OwnershipStore& store, std::uint64_t generation) {
    auto session = session_of("s1");
    session.domain_xml.assign(20'000, static_cast<char>('a' + generation % 26));  // several pages
    return store.put(session, {disk_of("s1", 0, generation), disk_of("s1", 1, generation)});
  };
  std::uint64_t last = 1;
  {
    auto store = open();
    ASSERT_TRUE(put(store, last).ok());
  }
  for (int writes = 0;; ++writes) {
    const int status = TestChild([&](int) {
                         auto store = OwnershipStore::open(path());
                         auto* system = sqlite3_vfs_find(nullptr);
                         auto* replacement = reinterpret_cast<sqlite3_syscall_ptr>(dying_pwrite);
                         writes_left = writes;
                         if (!store || (system->xSetSystemCall(system, "pwrite64", replacement) != SQLITE_OK &&
                                        system->xSetSystemCall(system, "pwrite", replacement) != SQLITE_OK))
                           return 1;
                         const bool ok = put(*store, last + 1).ok();
                         ::_exit(ok ? 0 : 2);  // without the store's end: it writes, too
                       }).wait();
    auto store = open();
    auto disks = store.disks();
    ASSERT_TRUE(disks.ok()) << "after " << writes << " writes: " << disks.error().message();
    ASSERT_EQ(disks->size(), 2u);
    const auto generation = (*disks)[0].generation;
    EXPECT_EQ((*disks)[1].generation, generation) << "after " << writes << " writes";
    EXPECT_EQ((*store.session("s1"))->domain_xml[19'999], 'a' + static_cast<int>(generation % 26));
    if (status == 0) {
      EXPECT_EQ(generation, last + 1);
      EXPECT_GT(writes, 5) << "a put of so many pages takes more writes";
      return;
    }
    ASSERT_EQ(status, -1) << "it had to be killed";
    EXPECT_TRUE(generation == last || generation == last + 1);
    last = generation;
  }
}

TEST_F(OwnershipStoreTest, TwoOpenersSeeEachOtherAndMayWriteAtOnce) {
  auto one = open();
  auto two = open();
  constexpr std::uint64_t kRounds = 50;
  auto write = [](OwnershipStore& store, const std::string& id, int number) {
    for (std::uint64_t generation = 1; generation <= kRounds; ++generation) {
      auto status = store.put(session_of(id), {disk_of(id, number, generation)});
      ASSERT_TRUE(status.ok()) << status.error().message();
    }
  };
  {
    std::jthread other([&] { write(two, "s2", 2); });
    write(one, "s1", 1);
  }
  EXPECT_EQ((*one.by_uuid(disk_of("", 2).uuid))->generation, kRounds);
  EXPECT_EQ((*two.by_uuid(disk_of("", 1).uuid))->generation, kRounds);
}

TEST_F(OwnershipStoreTest, ManyMayMakeTheFileAtOnce) {
  std::vector<std::unique_ptr<TestChild>> children;
  for (int n = 0; n < 8; ++n)
    children.push_back(std::make_unique<TestChild>([this, n](int) {
      auto store = OwnershipStore::open(path());
      const auto id = std::to_string(n);
      return store && store->put(session_of(id), {disk_of(id, n)}) ? 0 : 1;
    }));
  for (auto& child : children) EXPECT_EQ(child->wait(), 0);
  EXPECT_EQ(open().disks()->size(), 8u);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    ++files;
    EXPECT_EQ(entry.path().filename(), "ownership.db");
  }
  EXPECT_EQ(files, 1);
}

TEST_F(OwnershipStoreTest, OneStoreManyThreads) {
  auto store = open();
  std::vector<std::jthread> threads;
  for (int n = 0; n < 4; ++n)
    threads.emplace_back([&store, n] {
      const auto id = std::to_string(n);
      for (std::uint64_t generation = 1; generation <= 20; ++generation) {
        EXPECT_TRUE(store.put(session_of(id), {disk_of(id, n, generation)}).ok());
        EXPECT_TRUE(store.disks().ok());
      }
    });
  threads.clear();
  EXPECT_EQ(store.disks()->size(), 4u);
}

TEST_F(OwnershipStoreTest, NobodysDirectory) {
  auto store = OwnershipStore::open(directory_ + "/no/ownership.db");
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, Errc::not_found);
}

TEST_F(OwnershipStoreTest, ADirectoryThatCannotBeWritten) {
  { auto store = open(); }
  ASSERT_EQ(::chmod(path().c_str(), 0444), 0);
  ASSERT_EQ(::chmod(directory_.c_str(), 0555), 0);
  auto try_to_open = [](const std::string& name) {
    return TestChild([&name](int) {
             if (::getuid() == 0 && ::setuid(65534) != 0) return 9;  // permissions mean nothing to root
             auto store = OwnershipStore::open(name);
             if (store) return store->put(session_of("s"), {}).ok() ? 1 : 2;
             return store.error().code == Errc::permission && !store.error().hint.empty() ? 0 : 3;
           })
        .wait();
  };
  EXPECT_EQ(try_to_open(path()), 0) << "an existing file";
  EXPECT_EQ(try_to_open(directory_ + "/other.db"), 0) << "a file to be made";
}

TEST_F(OwnershipStoreTest, DamagedFilesAreRefusedAndLeftAlone) {
  {
    auto store = open();
    for (int n = 0; n < 8; ++n) ASSERT_TRUE(store.put(session_of("s"), {disk_of("s", n)}).ok());
  }
  const auto whole = contents();
  auto restore = [&](const std::string& bytes) { std::ofstream(path(), std::ios::binary | std::ios::trunc) << bytes; };
  auto expect_damage = [&](const char* what) {
    auto error = refusal();
    EXPECT_EQ(error.code, Errc::io) << what << ": " << error.message();
    EXPECT_NE(error.message().find("damaged"), std::string::npos) << what << ": " << error.message();
    EXPECT_NE(error.message().find(path()), std::string::npos) << what;
  };
  overwrite(0, std::string(16, 'x'));
  expect_damage("another file's head");
  restore(whole);
  overwrite(4096, std::string(4096, '\xff'));
  expect_damage("a page of garbage");
  restore(whole.substr(0, 5000));
  expect_damage("cut short");
  restore("");
  expect_damage("empty");
  restore(whole);
  EXPECT_EQ(open().disks()->size(), 8u);
}

TEST_F(OwnershipStoreTest, AnUnknownHoldingIsDamageAndNotGuessed) {
  {
    auto store = open();
    ASSERT_TRUE(store.put(session_of("s"), {disk_of("s", 0)}).ok());
  }
  ASSERT_TRUE(Database::open(path(), SQLITE_OPEN_READWRITE)->run("UPDATE disk SET holding = 'lent'").ok());
  EXPECT_EQ(open().disks().error().code, Errc::io);
}

// A killed writer leaves its newest records in the log.
TEST_F(OwnershipStoreTest, WithoutItsFileTheLogIsNeitherIgnoredNorThrownAway) {
  TestChild child([this](int report) {
    auto store = OwnershipStore::open(path());
    if (!store || !store->put(session_of("s"), {disk_of("s", 0)})) return 1;
    char done = 0;
    if (::write(report, &done, 1) != 1) return 2;
    return ::pause();
  });
  char done = 0;
  ASSERT_TRUE(child.read(done));
  child.kill();
  const std::string log = path() + "-wal";
  ASSERT_TRUE(std::filesystem::exists(log));
  const auto size = std::filesystem::file_size(log);
  const auto whole = contents();
  std::filesystem::remove(path());
  EXPECT_EQ(OwnershipStore::open(path()).error().code, Errc::io);
  EXPECT_FALSE(std::filesystem::exists(path()));
  std::ofstream(path()).close();
  EXPECT_EQ(OwnershipStore::open(path()).error().code, Errc::io);
  ASSERT_TRUE(std::filesystem::exists(log));
  EXPECT_EQ(std::filesystem::file_size(log), size);
  std::ofstream(path(), std::ios::binary) << whole;
  EXPECT_EQ(open().disks()->size(), 1u);
}

TEST_F(OwnershipStoreTest, AnErrandChangesAlone) {
  auto store = open();
  ASSERT_TRUE(store.put(session_of("s1"), {disk_of("s1", 0)}).ok());
  ASSERT_TRUE(store.put(session_of("s1-2"), {disk_of("s1-2", 1)}).ok());
  ASSERT_TRUE(store.put(session_of("s12"), {disk_of("s12", 2)}).ok());
  ASSERT_TRUE(store.set_errand("s1", "").ok());
  EXPECT_EQ((*store.session("s1-2"))->errand, "") << "a later session of the same job";
  EXPECT_NE((*store.session("s12"))->errand, "") << "another job";
  ASSERT_TRUE(store.set_errand("s2", "x").ok()) << "a session whose disks have moved on";
  EXPECT_EQ((*store.session("s1"))->errand, "");
  EXPECT_EQ((*store.session("s1"))->vm, "web1");
  EXPECT_FALSE(*store.session("s2"));
}

// As version 0.1 wrote it.
TEST_F(OwnershipStoreTest, AnOlderSchemaIsBroughtForward) {
  {
    auto store = open();
    ASSERT_TRUE(store.put(session_of("s1"), {disk_of("s1", 0, 7)}).ok());
  }
  {
    auto database = Database::open(path(), SQLITE_OPEN_READWRITE);
    ASSERT_TRUE(database->run("ALTER TABLE session DROP COLUMN errand; ALTER TABLE disk DROP COLUMN digest;"
                              "ALTER TABLE disk DROP COLUMN tracker; ALTER TABLE disk DROP COLUMN expires_at;"
                              "PRAGMA user_version = 1").ok());
  }
  for (int n = 0; n < 2; ++n) {
    auto store = open();
    auto disks = store.disks();
    ASSERT_TRUE(disks.ok() && disks->size() == 1) << disks.error().message();
    EXPECT_EQ((*disks)[0].generation, 7u);
    EXPECT_EQ((*disks)[0].digest, "");
    EXPECT_EQ((*disks)[0].expires_at, 0);
    if (n == 0) {
      EXPECT_EQ((*store.session("s1"))->errand, "");
    }
    ASSERT_TRUE(store.put(session_of("s1"), {disk_of("s1", 1)}).ok());
    ASSERT_TRUE(store.forget({disk_of("s1", 1).uuid}).ok());
  }
}

TEST_F(OwnershipStoreTest, ANewerSchemaIsRefused) {
  { auto store = open(); }
  ASSERT_TRUE(Database::open(path(), SQLITE_OPEN_READWRITE)->run("PRAGMA user_version = 3").ok());
  auto error = refusal();
  EXPECT_EQ(error.code, Errc::unsupported);
  EXPECT_NE(error.message().find("newer Ferry"), std::string::npos) << error.message();
}

TEST_F(OwnershipStoreTest, AnotherProgramsDatabaseIsRefused) {
  ASSERT_TRUE(Database::open(path(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)->run("CREATE TABLE t (x)").ok());
  auto error = refusal();
  EXPECT_EQ(error.code, Errc::io);
  EXPECT_NE(error.message().find("not of Ferry"), std::string::npos) << error.message();
}

// In a small file system of its own, so in a child with its own mounts.
int run_out_of_space(const std::string& directory) {
  if (!mount_small_tmpfs(directory, 256 << 10)) return TestChild::kSkip;
  auto store = OwnershipStore::open(directory + "/ownership.db");
  if (!store || !store->put(session_of("s"), {disk_of("s", 0), disk_of("s", 1)})) return 1;
  const std::string ballast = directory + "/ballast";
  std::ofstream(ballast) << std::string(1 << 20, 'b');  // fails in the middle, as it should
  auto large = session_of("s");
  large.domain_xml = std::string(64 << 10, 'x');
  auto status = store->put(large, {disk_of("s", 0, 2), disk_of("s", 1, 2)});
  if (status) return 2;
  if (status.error().code != Errc::no_space) return 3;
  auto disks = store->disks();
  if (!disks || disks->size() != 2 || (*disks)[0].generation != 1 || (*disks)[1].generation != 1) return 4;
  if ((*store->session("s"))->domain_xml != session_of("s").domain_xml) return 5;
  std::filesystem::remove(ballast);
  if (!store->put(session_of("s"), {disk_of("s", 0, 3), disk_of("s", 1, 3)})) return 6;
  auto again = OwnershipStore::open(directory + "/ownership.db");
  return again && (*again->disks())[1].generation == 3 ? 0 : 7;
}

TEST_F(OwnershipStoreTest, AFullDiskChangesNothingAndIsSurvived) {
  TestChild child([this](int) { return run_out_of_space(directory_); });
  const int status = child.wait();
  if (status == TestChild::kSkip) GTEST_SKIP() << "needs root, or user namespaces, to mount a small tmpfs";
  EXPECT_EQ(status, 0);
}

TEST(HoldingTest, NamesAreUniqueAndComeBack) {
  for (Holding holding : {Holding::moving, Holding::granting, Holding::given, Holding::receiving, Holding::prepared,
                          Holding::owned, Holding::revoked})
    EXPECT_EQ(holding_from_name(holding_name(holding)), holding);
  EXPECT_FALSE(holding_from_name("Owned"));
  EXPECT_FALSE(holding_from_name(""));
}

TEST(HoldingTest, OnlyWhatIsOursMayBeWritten) {
  for (Holding holding : {Holding::granting, Holding::given, Holding::receiving, Holding::prepared})
    EXPECT_TRUE(is_barred(holding)) << holding_name(holding);
  for (Holding holding : {Holding::moving, Holding::owned, Holding::revoked})
    EXPECT_FALSE(is_barred(holding)) << holding_name(holding);
}

}  // namespace
}  // namespace ferry::store
