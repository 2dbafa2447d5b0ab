// SPDX-License-Identifier: GPL-2.0-or-later
#include "io/block_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <vector>

#include "base/fd.h"
#include "io/disk_file.h"
#include "io/hash.h"

namespace ferry {
namespace {

constexpr size_t kBlock = 4096;
constexpr size_t kMany = 300 * kBlock;

Fd temp_file(uint64_t size_bytes) {
  std::string name = "/tmp/ferry-io-XXXXXX";
  Fd fd(mkstemp(name.data()));
  unlink(name.c_str());
  EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(size_bytes)), 0);
  return fd;
}

class BlockQueueTest : public ::testing::TestWithParam<IoEngine> {
 protected:
  std::unique_ptr<BlockQueue> make(unsigned slots, size_t bytes) {
    auto queue = BlockQueue::create(slots, bytes, GetParam());
    EXPECT_TRUE(queue.ok());
    return std::move(*queue);
  }
};
INSTANTIATE_TEST_SUITE_P(Engines, BlockQueueTest,
                         ::testing::Values(IoEngine::automatic, IoEngine::plain),
                         [](const auto& info) {
                           return info.param == IoEngine::plain ? "plain" : "automatic";
                         });

TEST_P(BlockQueueTest, WritesAndReadsManyAtOnce) {
  constexpr unsigned kSlots = 8;
  const Fd fd = temp_file(kSlots * kBlock);
  auto queue = make(kSlots, kBlock);
  for (unsigned slot = 0; slot < kSlots; ++slot) {
    std::memset(queue->buffer(slot), 'a' + static_cast<int>(slot), kBlock);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(queue->buffer(slot)) % kIoAlignment, 0u);
    ASSERT_TRUE(queue->start_write(slot, fd.get(), slot * kBlock, kBlock).ok());
  }
  EXPECT_EQ(queue->in_flight(), kSlots);
  std::set<unsigned> done;
  while (queue->in_flight() > 0) {
    auto completion = queue->wait();
    ASSERT_TRUE(completion.ok());
    EXPECT_EQ(completion->error, 0);
    done.insert(completion->slot);
  }
  EXPECT_EQ(done.size(), kSlots);
  // Read them in the opposite order.
  for (unsigned slot = 0; slot < kSlots; ++slot)
    ASSERT_TRUE(queue->start_read(slot, fd.get(), (kSlots - 1 - slot) * kBlock, kBlock).ok());
  while (queue->in_flight() > 0) ASSERT_TRUE(queue->wait().ok());
  for (unsigned slot = 0; slot < kSlots; ++slot)
    EXPECT_EQ(static_cast<char>(queue->buffer(slot)[kBlock - 1]),
              static_cast<char>('a' + kSlots - 1 - slot));
}

TEST_P(BlockQueueTest, ErrorsComeBackWithTheirSlot) {
  const Fd fd = temp_file(kBlock);
  auto queue = make(2, 2 * kBlock);
  ASSERT_TRUE(queue->start_read(0, fd.get(), 0, 2 * kBlock).ok());  // half of it past the end
  auto done = queue->wait();
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->error, ENODATA);
  ASSERT_TRUE(queue->start_write(1, -1, 0, kBlock).ok());
  done = queue->wait();
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->slot, 1u);
  EXPECT_EQ(done->error, EBADF);
  EXPECT_EQ(queue->in_flight(), 0u);
}

TEST_P(BlockQueueTest, PollFindsCompletionsAndTheEventTellsOfThem) {
  const Fd fd = temp_file(kBlock);
  auto queue = make(1, kBlock);
  EXPECT_FALSE((*queue->poll()).has_value());
  ASSERT_TRUE(queue->start_read(0, fd.get(), 0, kBlock).ok());
  if (queue->event_fd() >= 0) {
    pollfd waiter{queue->event_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&waiter, 1, 10000), 1);
  }
  auto done = queue->poll();
  ASSERT_TRUE(done.ok());
  ASSERT_TRUE(done->has_value());
  EXPECT_EQ((*done)->slot, 0u);
  EXPECT_FALSE((*queue->poll()).has_value());
  if (queue->event_fd() >= 0) {
    pollfd waiter{queue->event_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&waiter, 1, 0), 0) << "the signal was not cleared";
  }
}

TEST(BlockQueueEngineTest, SaysWhatItUses) {
  auto plain = BlockQueue::create(1, kBlock, IoEngine::plain);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(io_engine_name((*plain)->engine()), "pread/pwrite");
  auto chosen = BlockQueue::create(1, kBlock);
  ASSERT_TRUE(chosen.ok());
  EXPECT_EQ((*chosen)->engine(), probe_io_uring().ok() ? IoEngine::uring : IoEngine::plain);
  EXPECT_FALSE(BlockQueue::create(0, kBlock).ok());
}

TEST(ZeroWriterTest, ZeroesExactlyTheRange) {
  const Fd fd = temp_file(16 * kBlock);
  const std::vector<char> ones(16 * kBlock, 1);
  ASSERT_EQ(pwrite(fd.get(), ones.data(), ones.size(), 0), static_cast<ssize_t>(ones.size()));
  ZeroWriter zeroes(fd.get());
  ASSERT_TRUE(zeroes.write(4 * kBlock, 8 * kBlock).ok());
  ASSERT_TRUE(zeroes.write(0, 0).ok());
  std::vector<char> got(ones.size());
  ASSERT_EQ(pread(fd.get(), got.data(), got.size(), 0), static_cast<ssize_t>(got.size()));
  for (size_t at = 0; at < got.size(); ++at)
    ASSERT_EQ(got[at], at < 4 * kBlock || at >= 12 * kBlock ? 1 : 0) << at;
  EXPECT_EQ(*disk_size(fd.get()), 16 * kBlock);
}

TEST(ZeroWriterTest, FallsBackToWritingZeroes) {
  // A target that knows neither fallocate nor the ioctl, but takes writes.
  const Fd fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  ZeroWriter zeroes(fd.get());
  EXPECT_STREQ(zeroes.method(), "punch");
  ASSERT_TRUE(zeroes.write(0, kMany).ok());
  EXPECT_STREQ(zeroes.method(), "write");
  ASSERT_TRUE(zeroes.write(kBlock, kBlock).ok());
}

TEST(ZeroWriterTest, ReportsARealFailure) {
  const Fd fd = temp_file(kBlock);
  const Fd read_only(open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), O_RDONLY));
  ZeroWriter zeroes(read_only.get());
  const Status wrote = zeroes.write(0, kBlock);
  ASSERT_FALSE(wrote.ok());
  EXPECT_STREQ(zeroes.method(), "punch") << "a failure is no reason to try a slower way";
}

TEST(HashTest, KnownValuesAndStreaming) {
  EXPECT_EQ(xxh3_64("", 0), 0x2d06800538d394c2u);
  Hasher128 whole, parts;
  std::vector<unsigned char> data(100000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<unsigned char>(i * 31);
  whole.update(data.data(), data.size());
  for (size_t at = 0; at < data.size(); at += 777)
    parts.update(&data[at], std::min<size_t>(777, data.size() - at));
  EXPECT_EQ(whole.hex(), parts.hex());
  EXPECT_EQ(Hasher128().hex(), "99aa06d3014798d86001c324468d497f");
}

}  // namespace
}  // namespace ferry
