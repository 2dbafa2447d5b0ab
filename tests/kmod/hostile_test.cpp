// SPDX-License-Identifier: GPL-2.0-or-later
// Hostile callers: a user without rights gets nowhere, and root with nonsense in hand neither
// crashes the kernel nor leaves anything behind. $FERRY_SEED repeats a run, $FERRY_LONG makes it
// long. Worth most on the debug kernels.
#include <fcntl.h>
#include <linux/ferry.h>
#include <linux/genetlink.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>
#include <random>

#include "genl.h"
#include "suite.h"

namespace ferry::kmod {
namespace {

class HostileTest : public KmodTest {
 protected:
  void TearDown() override {
    EXPECT_TRUE(filter::list_trackers()->empty());
    KmodTest::TearDown();
  }
};

// Runs `attempt` as nobody, without capabilities; what it returns, which is 0 for "all refused".
template <typename F>
int as_nobody(F attempt) {
  pid_t child = fork();
  if (child == 0) {
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(100);
    _exit(attempt());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 101;
}

TEST_F(HostileTest, NobodyGetsNowhere) {
  TestVolume volume("kmod-hostile", 16 * kMiB);
  auto attachment = must_attach({.path = volume.path()});
  filter::TrackerUuid uuid = attachment.tracker().uuid();
  int family = family_number();
  ASSERT_GT(family, 0);
  EXPECT_EQ(ask(family, 0, &uuid), 0) << "root may ask";
  EXPECT_EQ(as_nobody([] { return open(FERRY_DEVICE, O_RDWR) >= 0 || errno != EACCES; }), 0);
  EXPECT_EQ(as_nobody([] { return open(FERRY_DEVICE, O_RDONLY) >= 0 || errno != EACCES; }), 0);
  EXPECT_EQ(as_nobody([&] { return ask(family, 0, &uuid) != -NLE_PERM; }), 0);
  EXPECT_EQ(as_nobody([&] { return ask(family, NLM_F_DUMP, nullptr) != -NLE_PERM; }), 0);
  EXPECT_EQ(as_nobody([&] { return filter::dm::table(volume.dm_name()).ok() ? 1 : 0; }), 0);
  EXPECT_EQ(as_nobody([&] { return filter::dm::suspend(volume.dm_name()).ok() ? 1 : 0; }), 0);
  EXPECT_EQ(as_nobody([&] { return filter::dm::resume(volume.dm_name()).ok() ? 1 : 0; }), 0);
  EXPECT_TRUE(attachment.intact());
  ASSERT_FERRY_OK(attachment.detach());
}

TEST_F(HostileTest, NobodyMayNotListen) {
  int group = 0;
  { NlSocket socket;
    group = genl_ctrl_resolve_grp(socket.get(), FERRY_GENL_NAME, FERRY_GENL_EVENTS); }
  ASSERT_GT(group, 0);
  auto join = [&] {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
    return setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0 ? 1 : 0;
  };
  EXPECT_EQ(join(), 1) << "root may";
  EXPECT_EQ(as_nobody(join), 0);
}

// ------------------------------------------------------------------------------------- fuzzing

uint64_t any_number(std::mt19937_64& random) {
  static constexpr uint64_t kOnes[] = {
      0, 1, 2, 7, 8, 12, 20, 63, 64, 4095, 4096, 4097, 32768, 65536, 1u << 20, UINT32_MAX,
      uint64_t{1} << 32, uint64_t{1} << 43, uint64_t{1} << 44, uint64_t{1} << 45,
      uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 1, INT64_MAX};
  return random() % 4 ? kOnes[random() % std::size(kOnes)] : random();
}

// One page for arguments with an unmapped one behind it.
class Arena {
 public:
  Arena() : base_(mmap(nullptr, 2 * kBlock, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    mprotect(bytes() + kBlock, kBlock, PROT_NONE);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { munmap(base_, 2 * kBlock); }
  char* bytes() { return static_cast<char*>(base_); }

 private:
  void* base_;
};

// An argument of numbers, half of them plausible, and a size; in places that are hard to read.
void* any_argument(std::mt19937_64& random, Arena& arena) {
  static constexpr uint32_t kSizes[] = {16, 24, 48, 168, 224, 232, 4096};
  for (uint64_t at = 0; at + 8 <= kBlock; at += 8) {
    uint64_t number = random() % 3 ? 0 : any_number(random);
    std::memcpy(arena.bytes() + at, &number, 8);
  }
  uint64_t at = random() % 3 ? 0 : kBlock - random() % 300;
  auto size = static_cast<uint32_t>(random() % 4 ? kSizes[random() % 7] : any_number(random));
  if (at + 4 <= kBlock) std::memcpy(arena.bytes() + at, &size, 4);
  switch (random() % 12) {
    case 0: return nullptr;
    case 1: return reinterpret_cast<void*>(0xffff888000000000);
    case 2: return reinterpret_cast<void*>(any_number(random));
    case 3: return arena.bytes() + kBlock;
    default: return arena.bytes() + at;
  }
}

// A tracker of at most 2^26 sectors: the test is not about the memory of this host.
void tame_create(unsigned number, void* argument, Arena& arena) {
  auto* at = static_cast<char*>(argument);
  uint64_t into = reinterpret_cast<uint64_t>(argument) - reinterpret_cast<uint64_t>(arena.bytes());
  if (number != _IOC_NR(FERRY_IOC_CREATE) || into > kBlock - sizeof(ferry_create)) return;
  ferry_create create;
  std::memcpy(&create, at, sizeof create);
  if (create.sectors >> 43 == 0) create.sectors %= 1 << 26;
  std::memcpy(at, &create, sizeof create);
}

void any_mmap(std::mt19937_64& random, int fd) {
  uint64_t offset = ((random() % 4) << 43) + ((random() % 5) << 12) - (random() % 2 ? 4096 : 0);
  if (random() % 4 == 0) offset = any_number(random) & ~uint64_t{4095};
  size_t length = (1 + random() % 6) * kBlock;
  if (random() % 8 == 0) length = (random() % (uint64_t{1} << 30)) | 1;
  int protection = static_cast<int>(random() % 8);
  void* area = mmap(nullptr, length, protection, random() % 2 ? MAP_SHARED : MAP_PRIVATE, fd,
                    static_cast<off_t>(offset));
  if (area == MAP_FAILED) return;
  if (protection & PROT_READ) (void)*static_cast<volatile char*>(area);
  (void)madvise(area, length, static_cast<int>(random() % 25));
  (void)mprotect(area, length, PROT_READ | PROT_WRITE);
  munmap(area, length);
}

TEST_F(HostileTest, IoctlsAndMappingsOfAnyShape) {
  std::mt19937_64 random(seed("ioctl fuzz"));
  uint64_t times = turns(10'000, 5'000'000), accepted = 0;
  TestVolume volume("kmod-fuzz", 16 * kMiB);
  auto attachment = must_attach({.path = volume.path()});
  Arena arena;
  std::vector<Fd> fds;
  for (uint64_t i = 0; i < times; ++i) {
    // Some are fresh, some own a tracker, one owns the tracker of a live table.
    if (fds.size() < 8) fds.push_back(open_device(FERRY_DEVICE, O_RDWR));
    int fd = random() % 3 ? fds[random() % fds.size()].get() : attachment.tracker().fd();
    if (random() % 6 == 0) {
      any_mmap(random, fd);
    } else {
      unsigned number = random() % 8 ? random() % 15 : random() % 256;
      unsigned type = random() % 16 ? FERRY_IOC_MAGIC : random() % 256;
      void* argument = any_argument(random, arena);
      tame_create(number, argument, arena);
      accepted += ioctl(fd, _IOC(random() % 4, type, number, random() % 16384), argument) == 0;
    }
    if (random() % 50 == 0) fds.erase(fds.begin() + static_cast<long>(random() % fds.size()));
  }
  std::cout << "ioctl fuzz: " << times << " calls, " << accepted << " accepted\n";
  EXPECT_GT(accepted, times / 100) << "most of the code was never reached";
  fds.clear();
  // Whatever state that was: out with it, and the same again from the start.
  ASSERT_FERRY_OK(attachment.leave());
  ASSERT_FERRY_OK(filter::detach_volume(volume.path(), true));
  attachment = must_attach({.path = volume.path()});
  Fd direct = open_device(volume.path(), O_RDWR | O_DIRECT);
  EXPECT_EQ(write_at(direct.get(), 0, kBlock, 1), 0);
  EXPECT_EQ(take_round(attachment.tracker()), blocks(0, 1));
  direct.reset();
  ASSERT_FERRY_OK(attachment.detach());
}

// One message of any shape: attributes cut short, of a wrong type, longer than the message.
std::vector<char> any_message(std::mt19937_64& random, int family) {
  std::vector<char> message(NLMSG_HDRLEN + GENL_HDRLEN + random() % 200);
  for (size_t at = NLMSG_HDRLEN + GENL_HDRLEN; at + 4 <= message.size();) {
    nlattr attribute{static_cast<uint16_t>(random() % 4 ? random() % 40 : random()),
                     static_cast<uint16_t>(random() % 4 ? random() % 20 : random())};
    std::memcpy(message.data() + at, &attribute, sizeof attribute);
    at += random() % 4 ? NLA_ALIGN(attribute.nla_len % 64) + 4 : 4;
    if (at < message.size()) message[at] = static_cast<char>(random());
  }
  genlmsghdr command{static_cast<uint8_t>(random() % 4 ? uint64_t{FERRY_CMD_GET} : random() % 256),
                     static_cast<uint8_t>(random() % 3), 0};
  std::memcpy(message.data() + NLMSG_HDRLEN, &command, sizeof command);
  nlmsghdr head{};
  head.nlmsg_len = static_cast<uint32_t>(random() % 8 ? message.size() : random() % 70'000);
  head.nlmsg_type = static_cast<uint16_t>(family);
  head.nlmsg_flags = NLM_F_REQUEST;
  if (random() % 2) head.nlmsg_flags |= NLM_F_ACK;
  if (random() % 3 == 0) head.nlmsg_flags |= NLM_F_DUMP;
  if (random() % 16 == 0) head.nlmsg_flags = static_cast<uint16_t>(random());
  head.nlmsg_seq = static_cast<uint32_t>(random());
  std::memcpy(message.data(), &head, sizeof head);
  return message;
}

TEST_F(HostileTest, NetlinkMessagesOfAnyShape) {
  std::mt19937_64 random(seed("netlink fuzz"));
  auto tracker = filter::Tracker::create(any_uuid(), "kmod-fuzz", 4097, 0, FERRY_MODE_TRACK);
  ASSERT_FERRY_OK(tracker);
  int family = family_number();
  uint64_t times = turns(5'000, 2'000'000), answers = 0;
  Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_GENERIC));
  std::vector<char> answer(64 * 1024);
  for (uint64_t i = 0; i < times; ++i) {
    auto message = any_message(random, family);
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    (void)!sendto(fd.get(), message.data(), message.size(), 0,
                  reinterpret_cast<sockaddr*>(&kernel), sizeof kernel);
    while (recv(fd.get(), answer.data(), answer.size(), 0) > 0) ++answers;
  }
  std::cout << "netlink fuzz: " << times << " messages, " << answers << " answers\n";
  EXPECT_GT(answers, times / 10);
  EXPECT_EQ(filter::list_trackers()->size(), 1u);
}

}  // namespace
}  // namespace ferry::kmod
