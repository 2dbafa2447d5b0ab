// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/bar_watch.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <array>
#include <cerrno>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "base/fd.h"
#include "base/log.h"
#include "daemon/bars.h"
#include "daemon/uevents.h"
#include "filter/netlink.h"
#include "volume/identity.h"

namespace ferry::daemon {
namespace {

// A command that changes a volume is in the way of the bar for moments; after so many it is no passing thing, and
// only something new is a reason to try again.
constexpr int kRetries = 10;
constexpr int kRetryMs = 500;

bool is_watched(store::Holding holding) {
  return store::is_barred(holding) && holding != store::Holding::receiving;
}

}  // namespace

class BarWatch::Watcher {
 public:
  Watcher(const store::OwnershipStore& store, Uevents uevents, Fd stop)
      : store_(store), uevents_(std::move(uevents)), stop_(std::move(stop)) {
    listen_to_filter();
    thread_ = std::thread([this] { run(); });
  }
  ~Watcher() {
    const std::uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof one);
    thread_.join();
  }

 private:
  void run();
  bool wait(int timeout_ms);
  void listen_to_filter();
  bool look();
  bool look_at(const store::DiskRecord& disk, const std::map<std::string, std::string>& devices);
  bool still_barred(const std::string& uuid) const;

  const store::OwnershipStore& store_;
  Uevents uevents_;
  Fd stop_;
  std::optional<filter::EventMonitor> monitor_;  // as soon as there is a module
  std::set<std::string> told_;                   // uuids whose trouble was logged and is not over
  std::thread thread_;
};

// The module may come later; its announcement brings us here again.
void BarWatch::Watcher::listen_to_filter() {
  if (monitor_) return;
  auto monitor = filter::EventMonitor::open();
  if (monitor) monitor_.emplace(std::move(*monitor));
}

// Until something may have happened; false when it is time to end.
bool BarWatch::Watcher::wait(int timeout_ms) {
  std::array<pollfd, 3> fds{{{stop_.get(), POLLIN, 0},
                             {uevents_.fd(), POLLIN, 0},
                             {monitor_ ? monitor_->fd() : -1, POLLIN, 0}}};
  while (true) {
    const int ready = ::poll(fds.data(), fds.size(), timeout_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (fds[0].revents != 0) return false;
    if (ready <= 0) return true;
    bool concerned = fds[1].revents != 0 && uevents_.take();
    while (monitor_ && fds[2].revents != 0) {
      auto event = monitor_->next();
      // Events that were lost are a reason to look; a socket that died with its module is opened anew by the module's
      // next announcement.
      if (event && !*event) break;
      concerned |= !event || (*event)->type == FERRY_EV_DETACHED;
      if (!event) break;
    }
    if (concerned) return true;
  }
}

void BarWatch::Watcher::run() {
  int retries = 0;
  do {
    listen_to_filter();
    retries = look() ? 0 : retries + 1;
  } while (wait(retries > 0 && retries <= kRetries ? kRetryMs : -1));
}

// True when all is well.
bool BarWatch::Watcher::look() {
  const auto disks = store_.disks();
  if (!disks) {
    spdlog::error("cannot watch over the barred volumes: {}", disks.error().message());
    return false;
  }
  bool well = true;
  const auto devices = volume::mapped_devices();
  for (const auto& disk : *disks)
    if (is_watched(disk.holding)) well &= look_at(disk, devices);
  return well;
}

bool BarWatch::Watcher::look_at(const store::DiskRecord& disk, const std::map<std::string, std::string>& devices) {
  if (is_closed(disk, devices)) {
    told_.erase(disk.uuid);
    return true;
  }
  const bool first = told_.insert(disk.uuid).second;
  const auto bar = bar_volume(disk, [this, &disk] { return still_barred(disk.uuid); });
  if (!bar) {
    if (first) spdlog::error("{}: lost its bar, and cannot be barred again: {}", disk.path, bar.error().message());
    return false;
  }
  if (*bar == Bar::fenced)
    spdlog::error("{}: the fence of a disk that another host owns was gone ({}): lvchange --refresh, lvextend and "
                  "lvchange -K do that. It is fenced again; what was written in between counts for nothing",
                  disk.path, disk.reason);
  return *bar != Bar::read_only;
}

bool BarWatch::Watcher::still_barred(const std::string& uuid) const {
  const auto disk = store_.by_uuid(uuid);
  return !disk || (*disk && is_watched((*disk)->holding));
}

Result<BarWatch> BarWatch::start(const store::OwnershipStore& store) {
  auto uevents = Uevents::open();
  if (!uevents) return std::move(uevents).error();
  Fd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop.valid()) return sys_error("cannot make an event descriptor", errno);
  return BarWatch(std::make_unique<Watcher>(store, std::move(*uevents), std::move(stop)));
}

BarWatch::BarWatch(std::unique_ptr<Watcher> watcher) : watcher_(std::move(watcher)) {}
BarWatch::BarWatch(BarWatch&&) noexcept = default;
BarWatch& BarWatch::operator=(BarWatch&&) noexcept = default;
BarWatch::~BarWatch() = default;

}  // namespace ferry::daemon
