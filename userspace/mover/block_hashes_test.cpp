// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/block_hashes.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <vector>

#include "base/fd.h"
#include "mover/digest.h"

namespace ferry::mover {
namespace {

constexpr size_t kBlock = 4096;

struct Disk {
  explicit Disk(size_t size) : bytes(size), fd(memfd_create("disk", MFD_CLOEXEC)) { save(); }
  void save() {
    ASSERT_EQ(pwrite(fd.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  void randomize() {
    std::mt19937 random(1);
    for (auto& byte : bytes) byte = static_cast<unsigned char>(random());
    save();
  }
  Digest digest() const {
    auto digest = digest_of(fd.get(), bytes.size(), kHashBlockShift, {}, {});
    EXPECT_TRUE(digest.ok());
    return *digest;
  }
  std::vector<unsigned char> bytes;
  Fd fd;
};

BlockHashes table_of(const std::vector<unsigned char>& bytes) {
  auto hashes = BlockHashes::create((bytes.size() + kBlock - 1) / kBlock, kHashBlockShift, "/tmp");
  EXPECT_TRUE(hashes.ok());
  hashes->set_data(0, bytes.data(), bytes.size());
  return std::move(*hashes);
}

TEST(BlockHashesTest, DigestEqualsThatOfTheDisk) {
  // Around the 256 KiB the reader takes at once, around whole blocks, and more than its window.
  for (const size_t size : {size_t{512}, kBlock, kBlock + 512, 64 * kBlock - 512, 64 * kBlock,
                            64 * kBlock + 512, 1000 * kBlock + 1024}) {
    Disk disk(size);
    disk.randomize();
    const BlockHashes hashes = table_of(disk.bytes);
    EXPECT_EQ(hashes.digest(), disk.digest()) << size;
    EXPECT_EQ(hashes.missing(), 0u);
    EXPECT_EQ(hashes.digest().hex().size(), 32u);
  }
}

TEST(BlockHashesTest, ZeroesHashTheSameHoweverTheyCame) {
  for (const size_t size : {size_t{512}, 10 * kBlock, 10 * kBlock + 1536}) {
    const Disk disk(size);
    const BlockHashes as_data = table_of(disk.bytes);
    auto as_zero = BlockHashes::create(as_data.nr_blocks(), kHashBlockShift, "/tmp");
    ASSERT_TRUE(as_zero.ok());
    as_zero->set_zero(0, size);
    EXPECT_EQ(as_zero->digest(), as_data.digest());
    EXPECT_EQ(as_zero->digest(), disk.digest());
  }
}

TEST(BlockHashesTest, EveryBlockCounts) {
  Disk disk(20 * kBlock);
  disk.randomize();
  const Digest before = disk.digest();
  for (size_t block = 0; block < 20; ++block) {
    disk.bytes[block * kBlock + 4095] ^= 1;
    disk.save();
    EXPECT_NE(disk.digest(), before) << block;
    disk.bytes[block * kBlock + 4095] ^= 1;
  }
  // Order counts as well.
  std::swap_ranges(disk.bytes.begin(), disk.bytes.begin() + kBlock, disk.bytes.begin() + kBlock);
  disk.save();
  EXPECT_NE(disk.digest(), before);
}

TEST(BlockHashesTest, MismatchesAreNamed) {
  Disk disk(100 * kBlock + 512);
  disk.randomize();
  BlockHashes hashes = table_of(disk.bytes);
  const auto mismatches = [&] {
    auto found = find_mismatches(disk.fd.get(), disk.bytes.size(), hashes, {}, {});
    EXPECT_TRUE(found.ok());
    return *found;
  };
  EXPECT_TRUE(mismatches().empty());
  for (const size_t at : {size_t{5}, 63 * kBlock, 64 * kBlock, 100 * kBlock + 511})
    disk.bytes[at] ^= 0x10;
  disk.save();
  EXPECT_EQ(mismatches(), (std::vector<uint64_t>{0, 63, 64, 100}));
  hashes.set(7, 0);  // as if nothing had ever come for it
  EXPECT_EQ(mismatches(), (std::vector<uint64_t>{0, 7, 63, 64, 100}));
  EXPECT_EQ(hashes.missing(), 1u);
}

TEST(BlockHashesTest, NewTableIsEmptyAndLeavesNoFile) {
  const std::string dir = (std::filesystem::temp_directory_path() / "ferry-hashes-dir").string();
  std::filesystem::create_directory(dir);
  {
    auto hashes = BlockHashes::create(1000, kHashBlockShift, dir);
    ASSERT_TRUE(hashes.ok());
    EXPECT_EQ(hashes->missing(), 1000u);
    EXPECT_TRUE(std::filesystem::is_empty(dir));
    hashes->set(1000, 5);  // past the end: ignored, not a crash
    EXPECT_EQ(hashes->get(1000), 0u);
    BlockHashes moved = std::move(*hashes);
    moved.set(999, 5);
    EXPECT_EQ(moved.get(999), 5u);
  }
  std::filesystem::remove(dir);
  EXPECT_FALSE(BlockHashes::create(1, kHashBlockShift, "/nonexistent").ok());
  EXPECT_FALSE(BlockHashes::create(0, kHashBlockShift, "/tmp").ok());
}

TEST(DigestTest, StopsAndReportsProgressAndErrors) {
  Disk disk(3 << 20);
  std::stop_source stop;
  uint64_t seen = 0;
  auto digest = digest_of(disk.fd.get(), disk.bytes.size(), kHashBlockShift,
                          [&](uint64_t done) { seen = done; stop.request_stop(); },
                          stop.get_token());
  ASSERT_FALSE(digest.ok());
  EXPECT_EQ(digest.error().code, Errc::aborted);
  EXPECT_EQ(seen, 256u << 10);
  digest = digest_of(disk.fd.get(), disk.bytes.size() + 4096, kHashBlockShift, {}, {});
  ASSERT_FALSE(digest.ok());
  EXPECT_EQ(digest.error().code, Errc::io);
}

}  // namespace
}  // namespace ferry::mover
