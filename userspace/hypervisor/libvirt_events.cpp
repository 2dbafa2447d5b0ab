// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/libvirt_events.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <atomic>
#include <thread>

#include "base/log.h"
#include "hypervisor/libvirt_error.h"

namespace ferry::hypervisor {
namespace {

class EventLoop {
 public:
  EventLoop() {
    // Errors travel as values; libvirt would print them to stderr as well.
    virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
    if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0) {
      status_ = libvirt_error("cannot set up libvirt's event loop");
      return;
    }
    // A timer that does nothing: the loop has something to sleep on, and updating it wakes it.
    timer_ = virEventAddTimeout(-1, [](int, void*) {}, nullptr, nullptr);
    thread_ = std::thread([this] {
      while (!ended_) {
        if (virEventRunDefaultImpl() < 0)
          spdlog::error("{}", libvirt_error("libvirt's event loop failed").message());
      }
    });
  }
  ~EventLoop() {
    if (!thread_.joinable()) return;
    ended_ = true;
    virEventUpdateTimeout(timer_, 0);
    thread_.join();
  }
  const Status& status() const { return status_; }

 private:
  Status status_ = ok_status();
  int timer_ = -1;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace

Status ensure_libvirt_events() {
  static EventLoop loop;
  return loop.status();
}

}  // namespace ferry::hypervisor
