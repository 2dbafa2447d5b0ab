// SPDX-License-Identifier: GPL-2.0-or-later
// For tests only: disks that are files, and a Sender and a Receiver connected over TLS on local
// sockets. Everything throws or fails the test when it cannot be set up.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "io/disk_file.h"
#include "mover/receiver.h"
#include "mover/sender.h"
#include "wire/test_keys.h"

namespace ferry::mover::testing {

using Bytes = std::vector<unsigned char>;

inline constexpr uint64_t kMiB = 1 << 20;

inline Bytes random_bytes(size_t size, uint64_t seed) {
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

inline BlockHashes hashes_for(uint64_t size_bytes) {
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

}  // namespace ferry::mover::testing
