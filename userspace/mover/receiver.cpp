// SPDX-License-Identifier: GPL-2.0-or-later
#include "mover/receiver.h"

#include <unistd.h>

#include <cerrno>

#include "mover/receiver_stream.h"
#include "wire/control.h"

namespace ferry::mover {
namespace {

// How long the sender may take to hear why we gave up.
constexpr int kLastWordsMs = 3000;

bool worth_telling(const Error& error) {
  return error.code != Errc::aborted && error.code != Errc::peer_unreachable;
}

}  // namespace

Receiver::Receiver(std::vector<DiskTarget> targets, ReceiverOptions options) : options_(options) {
  for (const DiskTarget& target : targets) targets_.push_back(std::make_unique<Target>(target));
}

Receiver::~Receiver() = default;

Status Receiver::serve(wire::Channel& channel, std::stop_token stop) {
  {
    const std::lock_guard lock(mutex_);
    ++serving_;
  }
  Status served = ok_status();
  {
    const std::stop_callback on_stop(stop, [&] { channel.abort(); });
    served = ReceiverStream(channel, targets_, received_bytes_).run(options_.engine);
    // A sender that ends waits for our end, to know that we have seen all of it.
    if (served.ok()) (void)channel.finish();
    if (!served.ok() && worth_telling(served.error()) &&
        wire::send_error(channel, served.error()).ok() && channel.finish().ok()) {
      // Closing over unread data would reset the connection and lose our words on the way.
      channel.drain(kLastWordsMs);
    }
  }
  const std::lock_guard lock(mutex_);
  if (--serving_ == 0) idle_.notify_all();
  return served;
}

Status Receiver::flush() {
  for (const auto& target : targets_)
    if (fdatasync(target->disk.fd) != 0)
      return make_error(Errc::io, "cannot flush disk " + std::to_string(target->disk.disk), errno);
  return ok_status();
}

void Receiver::wait_idle() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return serving_ == 0; });
}

}  // namespace ferry::mover
