// SPDX-License-Identifier: GPL-2.0-or-later
// No memory: each allocation that an operation makes fails once, while a writer writes. The guest
// never notices; a refused operation leaves nothing behind; the same operation works afterwards;
// the maps stay complete. Needs a kernel with fault injection (the lab's "kasan").
#include <fcntl.h>
#include <linux/ferry.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>
#include <optional>

#include "copier.h"
#include "fail_nth.h"
#include "filter/volume_table.h"
#include "genl.h"
#include "suite.h"
#include "writer.h"

namespace ferry::kmod {
namespace {

constexpr uint32_t kLongMs = 120'000;
constexpr uint64_t kBytes = 16 * kMiB;

// A guest that leaves the processor to others: there are hundreds of changes to wait for.
BusyWriter::Plan guest_on(const std::string& path) {
  return {.path = path, .nr_blocks = kBytes / kBlock, .depth = 8, .pause_ms = 20};
}

class AllocationTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    if (std::string why = FailNth::prepare(); !why.empty()) GTEST_SKIP() << why;
    volume_ = std::make_unique<TestVolume>("kmod-nomem", kBytes);
    { Fd fd = open_device(volume_->path(), O_RDWR | O_DIRECT);
      ASSERT_EQ(write_at(fd.get(), 0, kBytes, 0), 0); }
    attachment_ = std::make_unique<filter::Attachment>(must_attach({.path = volume_->path()}));
    copier_ = std::make_unique<Copier>(tracker(), attachment_->door_fd(), kBytes);
    writer_ = std::make_unique<BusyWriter>(guest_on(volume_->path()));
  }
  // The writer saw no error, and the copy is complete.
  void TearDown() override {
    if (attachment_) {
      EXPECT_FALSE(tracker().info()->invalid());
      copier_->round();
      EXPECT_FERRY_OK(tracker().freeze(kLongMs, kLongMs));
      copier_->round();
      EXPECT_EQ(copier_->count_lost(), 0u);
      EXPECT_FERRY_OK(tracker().thaw());
      writer_->stop();
      EXPECT_EQ(writer_->errors(), 0u);
      EXPECT_GT(writer_->completed(), 0u);
      EXPECT_EQ(writer_->count_wrong_blocks(attachment_->door_fd()), 0u);
      writer_.reset();
      copier_.reset();
      EXPECT_FERRY_OK(attachment_->detach());
      attachment_.reset();
      volume_.reset();
      EXPECT_TRUE(filter::list_trackers()->empty());
    }
    KmodTest::TearDown();
  }
  filter::Tracker& tracker() { return attachment_->tracker(); }
  void expect_only_ours() {
    auto listed = filter::list_trackers();
    ASSERT_FERRY_OK(listed);
    ASSERT_EQ(listed->size(), 1u);
    EXPECT_EQ((*listed)[0].uuid, tracker().uuid());
  }

  std::unique_ptr<TestVolume> volume_;
  std::unique_ptr<filter::Attachment> attachment_;
  std::unique_ptr<Copier> copier_;
  std::unique_ptr<BusyWriter> writer_;
};

int count_answer(nl_msg*, void* answers) {
  ++*static_cast<int*>(answers);
  return NL_OK;
}

// Neither suspended nor with a table in waiting.
void expect_runs(const std::string& dm_name) {
  auto info = filter::dm::info(dm_name);
  ASSERT_FERRY_OK(info);
  EXPECT_FALSE(info->suspended);
  EXPECT_FALSE(info->inactive_table);
}

TEST_F(AllocationTest, Create) {
  ferry_create arg{};
  Fd fd;
  fail_each_allocation("create",
    [&] {
      filter::TrackerUuid uuid{};
      uuid[0] = 7;
      arg = {};
      arg.size = sizeof arg;
      std::copy(uuid.begin(), uuid.end(), arg.uuid);
      std::strcpy(arg.name, "kmod-nomem");
      arg.sectors = 32768;
      arg.mode = FERRY_MODE_TRACK;
      fd = Fd(open(FERRY_DEVICE, O_RDWR | O_CLOEXEC));
      return fd.valid() && ioctl(fd.get(), FERRY_IOC_CREATE, &arg) == 0;
    },
    [&](bool ok) {
      if (!ok) expect_only_ours();  // the fd may still be open
      fd.reset();
      expect_only_ours();
    });
}

TEST_F(AllocationTest, OpenAndInfo) {
  Fd fd;
  fail_each_allocation("open and info",
    [&] {
      ferry_open arg{};
      arg.size = sizeof arg;
      std::copy(tracker().uuid().begin(), tracker().uuid().end(), arg.uuid);
      fd = Fd(open(FERRY_DEVICE, O_RDWR | O_CLOEXEC));
      ferry_info info{};
      info.size = sizeof info;
      return fd.valid() && ioctl(fd.get(), FERRY_IOC_OPEN, &arg) == 0 &&
             ioctl(fd.get(), FERRY_IOC_INFO, &info) == 0;
    },
    [&](bool) { fd.reset(); });
  expect_only_ours();
}

TEST_F(AllocationTest, SwapMapAndMark) {
  ferry_swap swap{};
  void* area = MAP_FAILED;
  uint64_t touched = 0;
  bool swapped = false;
  fail_each_allocation("swap, mmap of the retired map, mark",
    [&] {
      swap = {};
      swap.size = sizeof swap;
      ferry_range range{sizeof range, 0, 3, 9};
      swapped = ioctl(tracker().fd(), FERRY_IOC_SWAP, &swap) == 0;
      if (!swapped || ioctl(tracker().fd(), FERRY_IOC_MARK, &range) != 0) return false;
      area = mmap(nullptr, swap.map_len, PROT_READ, MAP_SHARED, tracker().fd(),
                  static_cast<off_t>(swap.map_off));
      if (area == MAP_FAILED) return false;
      touched += *static_cast<volatile uint64_t*>(area);
      return true;
    },
    [&](bool) {
      EXPECT_TRUE(swapped) << "a swap allocates nothing";
      if (area != MAP_FAILED) munmap(area, swap.map_len);
      area = MAP_FAILED;
      // What was retired is not lost when it could not be mapped: it can be mapped now.
      void* again = mmap(nullptr, swap.map_len, PROT_READ, MAP_SHARED, tracker().fd(),
                         static_cast<off_t>(swap.map_off));
      ASSERT_NE(again, MAP_FAILED) << std::strerror(errno);
      auto* words = static_cast<uint64_t*>(again);
      uint64_t blocks = kBytes / kBlock;
      for (uint64_t i = 0; i < blocks; ++i)
        if (words[i / 64] >> (i % 64) & 1) {
          ASSERT_FERRY_OK(tracker().mark(i, 1));
        }
      munmap(again, swap.map_len);
      ASSERT_FERRY_OK(tracker().release());
    });
}

TEST_F(AllocationTest, FreezeAndThaw) {
  auto monitor = filter::EventMonitor::open();  // so that events are built at all
  ASSERT_FERRY_OK(monitor);
  fail_each_allocation("freeze and thaw",
    [&] {
      ferry_freeze freeze{sizeof freeze, 0, kLongMs, kLongMs};
      return ioctl(tracker().fd(), FERRY_IOC_FREEZE, &freeze) == 0 &&
             ioctl(tracker().fd(), FERRY_IOC_THAW) == 0;
    },
    [&](bool ok) {
      EXPECT_TRUE(ok) << "an event that cannot be sent must not stop a freeze or a thaw";
      EXPECT_EQ(tracker().info()->state, FERRY_STATE_TRACKING);
      // Full, for all we know; only that there is a listener matters.
      for (auto event = monitor->next(); event.ok() && *event; event = monitor->next()) continue;
    });
}

TEST_F(AllocationTest, NetlinkDumpAndGet) {
  fail_each_allocation("netlink dump",
    [&] {
      auto listed = filter::list_trackers();
      // An answer is whole or an error.
      if (listed.ok()) {
        EXPECT_EQ(listed->size(), 1u);
      }
      return listed.ok();
    },
    [&](bool) { expect_only_ours(); });
}

TEST_F(AllocationTest, NetlinkGetOfOne) {
  int family = family_number();
  ASSERT_GT(family, 0);
  std::unique_ptr<NlSocket> socket;
  int answers = 0;
  // A socket for each: the acknowledgement of one question would answer the next.
  auto connect = [&] {
    socket = std::make_unique<NlSocket>();
    answers = 0;
    nl_socket_modify_cb(socket->get(), NL_CB_VALID, NL_CB_CUSTOM, count_answer, &answers);
    // The answer and the acknowledgement can both fail to come: then nothing does.
    timeval patience{stretched(2), 0};
    setsockopt(nl_socket_get_fd(socket->get()), SOL_SOCKET, SO_RCVTIMEO, &patience,
               sizeof patience);
  };
  connect();
  fail_each_allocation("netlink GET of one",
    [&] { return ask(*socket, family, 0, &tracker().uuid()) == 0; },
    [&](bool ok) {
      EXPECT_EQ(answers, ok ? 1 : 0) << "an answer is whole or an error";
      EXPECT_EQ(ask(family, 0, &tracker().uuid()), 0);
      connect();
    });
}

// dm's own allocations and the constructor's.
TEST_F(AllocationTest, TableLoad) {
  allow_ferry_errors();  // each refused constructor says why
  auto idle = filter::Tracker::create(any_uuid(), "kmod-nomem-2", 2048, 0, FERRY_MODE_TRACK);
  ASSERT_FERRY_OK(idle);
  DmDevice other("kmod-nomem-dm", "0 2048 linear " + volume_->device() + " 0");
  filter::DmTable plain = *filter::dm::table(other.name());
  filter::DmTable ours{{0, 2048, "ferry", volume_->device() + " 0 " +
                                              filter::to_text(idle->uuid())}};
  fail_each_allocation("table load",
    [&] { return filter::dm::load(other.name(), ours, false).ok(); },
    [&](bool ok) {
      EXPECT_EQ(filter::dm::info(other.name())->inactive_table, ok);
      if (ok) {
        ASSERT_FERRY_OK(filter::dm::clear(other.name()));
      }
      EXPECT_EQ(*filter::dm::table(other.name()), plain);
    });
}

// Into a table and live: an error leaves the old table live, and the device runs.
TEST_F(AllocationTest, TableSwap) {
  allow_ferry_errors();
  WithoutUdev alone;
  DmDevice other("kmod-nomem-dm", "0 2048 linear " + volume_->device() + " 0");
  filter::DmTable plain = *filter::dm::table(other.name());
  std::optional<filter::Tracker> idle;
  filter::DmTable ours;
  auto renew = [&] {
    idle.reset();
    auto made = filter::Tracker::create(any_uuid(), "kmod-nomem-2", 2048, 0, FERRY_MODE_TRACK);
    ASSERT_FERRY_OK(made);
    idle = std::move(*made);
    ours = {{0, 2048, "ferry", volume_->device() + " 0 " + filter::to_text(idle->uuid())}};
  };
  renew();
  fail_each_allocation("table swap",
    [&] { return filter::swap_table(other.name(), plain, ours, false).ok(); },
    [&](bool ok) {
      auto live = filter::dm::table(other.name());
      ASSERT_FERRY_OK(live);
      // The look at the table that ends a swap may be what fails: then it is in.
      bool in = *live == ours;
      EXPECT_TRUE(in || *live == plain);
      EXPECT_TRUE(in || !ok);
      expect_runs(other.name());
      EXPECT_EQ(idle->info()->bound(), in);
      ASSERT_FERRY_OK(idle->disarm());
      if (in) {
        ASSERT_FERRY_OK(filter::swap_table(other.name(), ours, plain, false));
      }
      renew();
    });
}

// A write whose own allocations fail is a failed write or a marked one.
TEST_F(AllocationTest, Writes) {
  writer_.reset();
  Fd direct = open_device(volume_->path(), O_RDWR | O_DIRECT);
  Buffer data(4 * kBlock, 'w');
  fail_each_allocation("write",
    [&] {
      return pwrite(direct.get(), data.data(), data.size(), 5 * kBlock) ==
             static_cast<ssize_t>(data.size());
    },
    [&](bool ok) {
      EXPECT_EQ(tracker().info()->inflight, 0u);
      std::set<uint64_t> round = take_round(tracker());
      if (ok) {
        EXPECT_EQ(round, blocks(5, 4));
      }
      for (uint64_t block : round) ASSERT_FERRY_OK(tracker().mark(block, 1));
      copier_->round();
    });
  // The writer of the other tests goes on from zeroes.
  ASSERT_EQ(write_at(direct.get(), 0, kBytes, 0), 0);
  direct.reset();
  writer_ = std::make_unique<BusyWriter>(guest_on(volume_->path()));
  ASSERT_TRUE(eventually([&] { return writer_->completed() > 8; }));
}

// The whole insertion into a busy volume, with door and tracker: it is in, or nothing of it is left
// and the guest has seen nothing.
class AttachAllocationTest : public KmodTest {
 protected:
  void SetUp() override {
    KmodTest::SetUp();
    if (std::string why = FailNth::prepare(); !why.empty()) GTEST_SKIP() << why;
  }
  void fail_in_attach(const std::string& what, const std::string& path, const std::string& name,
                      bool in_place) {
    allow_ferry_errors();
    WithoutUdev alone;
    Fd direct = open_device(path, O_RDWR | O_DIRECT);
    ASSERT_EQ(write_at(direct.get(), 0, kBytes, 0), 0);
    std::string plain = table_text(name);
    BusyWriter writer(guest_on(path));
    std::optional<filter::Attachment> attachment;
    fail_each_allocation(what,
      [&] {
        auto made = filter::Attachment::attach({.path = path});
        if (made.ok()) attachment = std::move(*made);
        return made.ok();
      },
      [&](bool ok) {
        if (ok) {
          EXPECT_TRUE(attachment->intact());
          EXPECT_EQ(attachment->in_place(), in_place);
          ASSERT_FERRY_OK(attachment->detach());
          attachment.reset();
        }
        ASSERT_EQ(table_text(name), plain);
        expect_runs(name);
        EXPECT_TRUE(filter::list_trackers()->empty());
        for (const char* suffix : {"-ferry", "-ferryreal"})
          EXPECT_EQ(filter::dm::info(name + suffix).error().code, Errc::not_found);
        uint64_t before = writer.completed();
        ASSERT_TRUE(eventually([&] { return writer.completed() > before; }));
      });
    writer.stop();
    EXPECT_EQ(writer.errors(), 0u);
    EXPECT_EQ(writer.count_wrong_blocks(direct.get()), 0u);
  }
};

TEST_F(AttachAllocationTest, InPlace) {
  TestVolume volume("kmod-nomem-attach", kBytes);
  fail_in_attach("attach in place", volume.path(), volume.dm_name(), true);
}

TEST_F(AttachAllocationTest, Stacked) {
  TestVolume below("kmod-nomem-below", kBytes);
  DmDevice striped("kmod-nomem-striped", "0 32768 striped 1 128 " + below.device() + " 0");
  fail_in_attach("attach on top", striped.path(), striped.name(), false);
}

}  // namespace
}  // namespace ferry::kmod
