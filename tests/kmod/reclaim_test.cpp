// SPDX-License-Identifier: GPL-2.0-or-later
// R13: memory reclaim waits for a disk that is frozen. The host's own swap lies on a tracked volume,
// memory is pushed out to it while it is frozen, and the writes are held: every call that the last
// round needs still works, and what ends the freeze ends the wait.
//
// That nothing under the tracker's lock allocates in a way that could wait for such a write cannot
// be made to happen at will; lockdep knows it instead, in every test of this suite on the lab's
// "kasan" kernel: teach_lockdep() in kmod/tracker.c.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "copier.h"
#include "event_test.h"
#include "suite.h"

namespace ferry::kmod {
namespace {

constexpr uint32_t kLongMs = 120'000;
constexpr uint64_t kBytes = 64 * kMiB;
constexpr uint64_t kMemoryBytes = 8 * kMiB;
constexpr int kPageOut = 21;  // MADV_PAGEOUT; older C libraries do not have it

// Memory of known contents that the kernel may push out.
class Memory {
 public:
  Memory() : base_(mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (base_ == MAP_FAILED) throw std::runtime_error("no memory");
    for (uint64_t i = 0; i < kMemoryBytes / 8; ++i) words()[i] = i * 0x9e3779b97f4a7c15;
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { munmap(base_, kMemoryBytes); }
  // Reclaims it at once, as a shortage of memory would.
  void push_out() {
    ASSERT_EQ(madvise(base_, kMemoryBytes, kPageOut), 0) << std::strerror(errno);
  }
  uint64_t count_wrong() {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < kMemoryBytes / 8; ++i) wrong += words()[i] != i * 0x9e3779b97f4a7c15;
    return wrong;
  }

 private:
  volatile uint64_t* words() { return static_cast<uint64_t*>(base_); }
  void* base_;
};

class ReclaimTest : public EventTest {
 protected:
  void SetUp() override {
    EventTest::SetUp();
    volume_ = std::make_unique<TestVolume>("kmod-reclaim", kBytes);
    ASSERT_EQ(run({"mkswap", volume_->path()}), 0);
    attachment_ = std::make_unique<filter::Attachment>(must_attach({.path = volume_->path()}));
    copier_ = std::make_unique<Copier>(tracker(), attachment_->door_fd(), kBytes);
    ASSERT_EQ(swapon(volume_->path().c_str(), 0), 0) << std::strerror(errno);
  }
  void TearDown() override {
    if (attachment_) {
      EXPECT_EQ(swapoff(volume_->path().c_str()), 0) << std::strerror(errno);
      copier_.reset();
      EXPECT_FERRY_OK(attachment_->detach());
    }
    attachment_.reset();
    volume_.reset();
    EventTest::TearDown();
  }
  filter::Tracker& tracker() { return attachment_->tracker(); }
  filter::TrackerInfo info() { return *tracker().info(); }
  void freeze_and_push_out(uint32_t watchdog_ms) {
    ASSERT_FERRY_OK(tracker().freeze(kLongMs, watchdog_ms));
    memory_.push_out();
    ASSERT_TRUE(eventually_held(tracker(), 1)) << "no page was written to the frozen disk";
  }

  std::unique_ptr<TestVolume> volume_;
  std::unique_ptr<filter::Attachment> attachment_;
  std::unique_ptr<Copier> copier_;
  Memory memory_;
};

TEST_F(ReclaimTest, TheLastRoundIsTakenWhileReclaimWaits) {
  freeze_and_push_out(kLongMs);
  uint64_t held = info().held;
  copier_->round();  // swap, map, read, release
  EXPECT_EQ(copier_->count_lost(), 0u);
  EXPECT_EQ(filter::list_trackers()->size(), 1u);
  EXPECT_GE(info().held, held) << "it was held all the time";
  EXPECT_EQ(info().state, FERRY_STATE_FROZEN);
  ASSERT_FERRY_OK(tracker().thaw());
  ASSERT_TRUE(eventually([&] { return info().held == 0 && info().inflight == 0; }));
  EXPECT_FALSE(info().freeze_lost());
  // The pages that were written are in the maps of what comes next, and come back as they were.
  uint64_t copied = copier_->copied();
  ASSERT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
  copier_->round();
  EXPECT_GE(copier_->copied(), copied + held);
  EXPECT_EQ(copier_->count_lost(), 0u);
  ASSERT_FERRY_OK(tracker().thaw());
  EXPECT_EQ(memory_.count_wrong(), 0u);
}

TEST_F(ReclaimTest, TheWatchdogEndsTheWait) {
  freeze_and_push_out(static_cast<uint32_t>(stretched(3000)));
  EXPECT_TRUE(wait_for_event(*monitor_, tracker().uuid(), FERRY_EV_WATCHDOG_THAW));
  ASSERT_TRUE(eventually([&] { return info().held == 0 && info().inflight == 0; }));
  EXPECT_EQ(memory_.count_wrong(), 0u);
}

// A fence refuses what waits. The kernel keeps pages in memory that it could not write.
TEST_F(ReclaimTest, AFenceLosesNoMemory) {
  freeze_and_push_out(kLongMs);
  ASSERT_FERRY_OK(tracker().fence());
  ASSERT_TRUE(eventually([&] { return info().held == 0; }));
  EXPECT_GT(info().fenced_writes, 0u);
  EXPECT_EQ(memory_.count_wrong(), 0u);
  ASSERT_FERRY_OK(tracker().unfence());
}

}  // namespace
}  // namespace ferry::kmod
