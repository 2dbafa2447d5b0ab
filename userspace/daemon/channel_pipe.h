// SPDX-License-Identifier: GPL-2.0-or-later
// ChannelPipe: a connection to the peer's daemon as the byte pipe that libvirt's control traffic takes.
// Thread-safety: as wire::Channel.
#pragma once

#include <memory>

#include "hypervisor/byte_pipe.h"
#include "wire/channel.h"

namespace ferry::daemon {

class ChannelPipe : public hypervisor::BytePipe {
 public:
  // Borrows the channel.
  explicit ChannelPipe(wire::Channel& channel) : channel_(channel) {}
  // Owns it.
  explicit ChannelPipe(std::unique_ptr<wire::Channel> channel) : owned_(std::move(channel)), channel_(*owned_) {}

  Result<size_t> read_some(void* data, size_t size_bytes) override { return channel_.read_some(data, size_bytes); }
  Status write_all(const void* data, size_t size_bytes) override { return channel_.write_all(data, size_bytes); }
  void abort() override { channel_.abort(); }

 private:
  std::unique_ptr<wire::Channel> owned_;
  wire::Channel& channel_;
};

}  // namespace ferry::daemon
