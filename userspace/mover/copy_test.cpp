// SPDX-License-Identifier: GPL-2.0-or-later
// Sender and Receiver against each other, over TLS on local sockets, with real files.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <deque>
#include <future>
#include <random>
#include <thread>

#include "io/disk_file.h"
#include "io/hash.h"
#include "mover/digest.h"
#include "mover/receiver.h"
#include "mover/sender.h"
#include "wire/control.h"
#include "wire/test_keys.h"

namespace ferry::mover {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<unsigned char>;

constexpr uint64_t kMiB = 1 << 20;

Bytes random_bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (size_t at = 0; at < size; at += 8) {
    const uint64_t word = random();
    std::memcpy(&bytes[at], &word, std::min<size_t>(8, size - at));
  }
  return bytes;
}

// A file that goes away with its owner; filled and read through the page cache, handed out
// O_DIRECT where the filesystem can.
class TestDisk {
 public:
  explicit TestDisk(uint64_t size_bytes) : size_bytes_(size_bytes) {
    std::string name = (std::filesystem::temp_directory_path() / "ferry-disk-XXXXXX").string();
    plain_ = Fd(mkstemp(name.data()));
    wire::testing::check(ftruncate(plain_.get(), static_cast<off_t>(size_bytes)) == 0, "size");
    auto fd = open_disk(name, OpenMode::read_write);
    wire::testing::check(fd.ok(), "open");
    fd_ = std::move(*fd);
    std::filesystem::remove(name);
  }
  void write(uint64_t offset, const Bytes& bytes) {
    wire::testing::check(pwrite(plain_.get(), bytes.data(), bytes.size(),
                                static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes.size()),
                         "write");
    wire::testing::check(fsync(plain_.get()) == 0, "fsync");
  }
  Bytes read() const {
    Bytes bytes(size_bytes_);
    wire::testing::check(pread(plain_.get(), bytes.data(), bytes.size(), 0) ==
                         static_cast<ssize_t>(bytes.size()), "read");
    return bytes;
  }
  uint64_t allocated() const {
    struct stat st {};
    fstat(plain_.get(), &st);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  }
  int fd() const { return fd_.get(); }
  uint64_t size() const { return size_bytes_; }

 private:
  uint64_t size_bytes_;
  Fd plain_, fd_;
};

class ListSource : public ExtentSource {
 public:
  ListSource(std::initializer_list<Extent> extents) : extents_(extents) {}
  bool next(Extent& out) override {
    if (extents_.empty()) return false;
    out = extents_.front();
    extents_.pop_front();
    return true;
  }

 private:
  std::deque<Extent> extents_;
};

BlockHashes hashes_for(uint64_t size_bytes) {
  auto hashes = BlockHashes::create((size_bytes + 4095) / 4096, kHashBlockShift, "/tmp");
  wire::testing::check(hashes.ok(), "hashes");
  return std::move(*hashes);
}

// N streams between a Sender and a Receiver in one process.
class Link {
 public:
  Link(unsigned streams, std::vector<DiskTarget> targets, SenderOptions options = {},
       IoEngine engine = IoEngine::automatic)
      : receiver(std::move(targets), {engine}) {
    options.engine = engine;
    std::vector<std::unique_ptr<wire::Channel>> near;
    for (unsigned i = 0; i < streams; ++i) {
      auto pair = wire::testing::handshake(context_, context_, "host");
      near.push_back(std::move(*pair.client));
      far.push_back(std::move(*pair.server));
      served.push_back(std::async(std::launch::async, [this, channel = far.back().get()] {
        return receiver.serve(*channel, stop.get_token());
      }));
    }
    sender.emplace(std::move(near), options);
  }
  ~Link() {
    if (sender) sender->abort();
    stop.request_stop();
  }
  // The ends of all serve() calls after an orderly finish.
  void finish() {
    std::jthread ending([this] { sender->finish(); });
    for (auto& call : served) {
      const Status end = call.get();
      EXPECT_TRUE(end.ok()) << end.error().message();
      // What the daemon does: when serve() has returned the channel goes away.
    }
    far.clear();
  }

 private:
  static inline wire::testing::TestPki pki_;
  std::shared_ptr<wire::TlsContext> context_ = pki_.context("host", "DNS:host");

 public:
  Receiver receiver;
  std::stop_source stop;
  std::vector<std::unique_ptr<wire::Channel>> far;
  std::vector<std::future<Status>> served;
  std::optional<Sender> sender;
};

class CopyTest : public ::testing::TestWithParam<IoEngine> {};
INSTANTIATE_TEST_SUITE_P(Engines, CopyTest, ::testing::Values(IoEngine::automatic, IoEngine::plain),
                         [](const auto& info) {
                           return info.param == IoEngine::plain ? "plain" : "automatic";
                         });

TEST_P(CopyTest, WholeDiskOverFourStreams) {
  // The last block is short: 512 bytes.
  TestDisk from(9 * kMiB + 512), to(9 * kMiB + 512);
  from.write(0, random_bytes(3 * kMiB, 1));
  from.write(7 * kMiB, random_bytes(2 * kMiB + 512, 2));
  to.write(0, random_bytes(9 * kMiB + 512, 3));  // an old disk: zeroes have to be written too
  auto hashes = hashes_for(to.size());
  Link link(4, {{5, to.fd(), to.size(), &hashes}}, {}, GetParam());
  ListSource all{{5, 0, from.size()}};
  auto stats = link.sender->copy({{5, from.fd(), from.size()}}, all, {}, {});
  ASSERT_TRUE(stats.ok()) << stats.error().message();
  EXPECT_EQ(stats->covered_bytes, from.size());
  EXPECT_EQ(stats->data_bytes, 5 * kMiB + 512);
  EXPECT_EQ(stats->zero_bytes, 4 * kMiB);
  EXPECT_EQ(stats->disk_bytes.at(5), 5 * kMiB + 512);
  EXPECT_EQ(link.receiver.received_bytes(), from.size());
  ASSERT_TRUE(link.receiver.flush().ok());
  EXPECT_TRUE(to.read() == from.read());
  link.finish();

  EXPECT_EQ(hashes.missing(), 0u);
  auto source_digest = digest_of(from.fd(), from.size(), kHashBlockShift, {}, {});
  auto target_digest = digest_of(to.fd(), to.size(), kHashBlockShift, {}, {});
  ASSERT_TRUE(source_digest.ok() && target_digest.ok());
  EXPECT_EQ(*source_digest, hashes.digest());
  EXPECT_EQ(*target_digest, hashes.digest());
  auto same = find_mismatches(to.fd(), to.size(), hashes, {}, {});
  ASSERT_TRUE(same.ok());
  EXPECT_TRUE(same->empty());
}

TEST_P(CopyTest, SparseContentStaysSparse) {
  TestDisk from(32 * kMiB), to(32 * kMiB);
  from.write(16 * kMiB + 64 * 1024, random_bytes(4096, 4));
  auto hashes = hashes_for(to.size());
  Link link(2, {{0, to.fd(), to.size(), &hashes}}, {}, GetParam());
  ListSource all{{0, 0, from.size()}};
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, all, {}, {});
  ASSERT_TRUE(stats.ok()) << stats.error().message();
  EXPECT_LE(stats->data_bytes, 32u * 1024);
  EXPECT_LE(to.allocated(), 256u * 1024);
  EXPECT_TRUE(to.read() == from.read());
  link.finish();
}

// What is written in a later round wins, for every block, however the streams race.
TEST_P(CopyTest, RewritesOverManyRounds) {
  constexpr uint64_t kDisk = 4 * kMiB;
  TestDisk from(kDisk), to(kDisk);
  auto hashes = hashes_for(kDisk);
  Link link(3, {{0, to.fd(), kDisk, &hashes}}, {}, GetParam());
  const std::vector<DiskSource> disks{{0, from.fd(), kDisk}};
  for (uint64_t round = 0; round < 12; ++round) {
    // Data and zeroes take turns over the same blocks.
    from.write(0, round % 3 == 2 ? Bytes(kDisk) : random_bytes(kDisk, 100 + round));
    ListSource all{{0, 0, kDisk}};
    auto stats = link.sender->copy(disks, all, {}, {});
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    ASSERT_TRUE(to.read() == from.read()) << "round " << round;
    ASSERT_EQ(*digest_of(from.fd(), kDisk, kHashBlockShift, {}, {}), hashes.digest());
  }
  ListSource nothing{};
  auto empty = link.sender->copy(disks, nothing, {}, {});
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->covered_bytes, 0u);
  link.finish();
}

TEST_P(CopyTest, SeveralDisksAndScatteredBlocks) {
  TestDisk from0(kMiB), to0(kMiB), from1(2 * kMiB), to1(2 * kMiB);
  from0.write(0, random_bytes(kMiB, 6));
  from1.write(0, random_bytes(2 * kMiB, 7));
  auto hashes = hashes_for(to1.size());
  Link link(2, {{0, to0.fd(), to0.size(), nullptr}, {1, to1.fd(), to1.size(), &hashes}}, {},
            GetParam());
  // The last extent overruns the end, as a large tracking block does.
  ListSource some{{1, 4096, 4096}, {0, 8192, 16384}, {1, 2 * kMiB - 4096, kMiB}};
  auto stats = link.sender->copy({{0, from0.fd(), from0.size()}, {1, from1.fd(), from1.size()}},
                                 some, {}, {});
  ASSERT_TRUE(stats.ok()) << stats.error().message();
  EXPECT_EQ(stats->disk_bytes, (std::vector<uint64_t>{16384, 8192}));
  Bytes expected0(kMiB), expected1(2 * kMiB);
  const Bytes all0 = from0.read(), all1 = from1.read();
  std::copy_n(&all0[8192], 16384, &expected0[8192]);
  std::copy_n(&all1[4096], 4096, &expected1[4096]);
  std::copy_n(&all1[2 * kMiB - 4096], 4096, &expected1[2 * kMiB - 4096]);
  EXPECT_TRUE(to0.read() == expected0);
  EXPECT_TRUE(to1.read() == expected1);
  EXPECT_EQ(hashes.missing(), hashes.nr_blocks() - 2);
  link.finish();
}

TEST_P(CopyTest, ALimitIsKeptAndCanBeLiftedWhileCopying) {
  TestDisk from(8 * kMiB), to(8 * kMiB);
  from.write(0, random_bytes(8 * kMiB, 8));
  TokenBucket limit(1);  // as good as stopped, once the burst is used up
  SenderOptions options;
  options.limit = &limit;
  options.progress_every = std::chrono::milliseconds(1);
  Link link(2, {{0, to.fd(), to.size(), nullptr}}, options, GetParam());
  ListSource all{{0, 0, from.size()}};
  uint64_t calls = 0, covered = 0;
  auto stats = link.sender->copy(
      {{0, from.fd(), from.size()}}, all,
      [&](const CopyStats& now) {
        EXPECT_GE(now.covered_bytes, covered);
        covered = now.covered_bytes;
        if (++calls == 5) {
          EXPECT_LT(now.covered_bytes, kMiB);
          limit.set_rate(0);
        }
      },
      {});
  ASSERT_TRUE(stats.ok()) << stats.error().message();
  EXPECT_GT(calls, 5u);
  EXPECT_EQ(covered, from.size());
  EXPECT_TRUE(to.read() == from.read());
}

TEST_P(CopyTest, StopEndsACopyThatCannotGoOn) {
  TestDisk from(8 * kMiB), to(8 * kMiB);
  from.write(0, random_bytes(8 * kMiB, 9));
  TokenBucket limit(1);
  SenderOptions options;
  options.limit = &limit;
  options.progress_every = std::chrono::milliseconds(1);
  Link link(3, {{0, to.fd(), to.size(), nullptr}}, options, GetParam());
  ListSource all{{0, 0, from.size()}};
  std::stop_source stop;
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, all,
                                 [&](const CopyStats&) { stop.request_stop(); }, stop.get_token());
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::aborted);
  for (auto& call : link.served) EXPECT_FALSE(call.get().ok());
  link.receiver.wait_idle();
  ListSource again{{0, 0, 4096}};
  EXPECT_FALSE(link.sender->copy({{0, from.fd(), from.size()}}, again, {}, {}).ok());
}

TEST_P(CopyTest, ADroppedStreamEndsTheCopyOnAllStreams) {
  TestDisk from(8 * kMiB), to(8 * kMiB);
  from.write(0, random_bytes(8 * kMiB, 10));
  TokenBucket limit(1);
  SenderOptions options;
  options.limit = &limit;
  options.progress_every = std::chrono::milliseconds(1);
  Link link(3, {{0, to.fd(), to.size(), nullptr}}, options, GetParam());
  ListSource all{{0, 0, from.size()}};
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, all,
                                 [&](const CopyStats&) { link.far[1]->abort(); }, {});
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::peer_unreachable) << stats.error().message();
  for (auto& call : link.served) EXPECT_FALSE(call.get().ok());
}

TEST_P(CopyTest, AWriteErrorAtTheReceiverIsToldToTheSender) {
  TestDisk from(8 * kMiB), to(8 * kMiB);
  from.write(0, random_bytes(8 * kMiB, 11));
  const Fd read_only(open(("/proc/self/fd/" + std::to_string(to.fd())).c_str(), O_RDONLY));
  Link link(2, {{0, read_only.get(), to.size(), nullptr}}, {}, GetParam());
  ListSource all{{0, 0, from.size()}};
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, all, {}, {});
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::io) << stats.error().message();
  EXPECT_THAT(stats.error().message(), HasSubstr("the peer reports: cannot write"));
}

TEST_P(CopyTest, AReadErrorAtTheSenderEndsTheCopy) {
  TestDisk from(4 * kMiB), to(8 * kMiB);
  Link link(2, {{0, to.fd(), to.size(), nullptr}}, {}, GetParam());
  ListSource all{{0, 0, 8 * kMiB}};
  auto stats = link.sender->copy({{0, from.fd(), 8 * kMiB}}, all, {}, {});
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::io);
  EXPECT_THAT(stats.error().message(), HasSubstr("cannot read"));
}

TEST_P(CopyTest, ExtentsThatMakeNoSenseEndTheCopy) {
  TestDisk from(kMiB), to(kMiB);
  for (const Extent& bad : {Extent{1, 0, 4096}, Extent{0, kMiB, 4096}, Extent{0, 512, 4096},
                            Extent{0, 0, 100}, Extent{0, 0, 0}}) {
    Link link(1, {{0, to.fd(), to.size(), nullptr}}, {}, GetParam());
    ListSource extents{bad};
    EXPECT_FALSE(link.sender->copy({{0, from.fd(), from.size()}}, extents, {}, {}).ok());
  }
}

TEST_P(CopyTest, ASmallerTargetIsRefused) {
  TestDisk from(2 * kMiB), to(kMiB);
  from.write(0, random_bytes(2 * kMiB, 12));
  Link link(1, {{0, to.fd(), to.size(), nullptr}}, {}, GetParam());
  ListSource extents{{0, kMiB, 4096}};
  auto stats = link.sender->copy({{0, from.fd(), from.size()}}, extents, {}, {});
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code, Errc::protocol);
  EXPECT_THAT(stats.error().message(), HasSubstr("lie outside"));
}

}  // namespace
}  // namespace ferry::mover
