// SPDX-License-Identifier: GPL-2.0-or-later
// BarWatch: notices when a volume that another host owns has lost its bar while the daemon runs (lvchange --refresh,
// lvextend, an activation that insists), bars it again at once, and logs an error. It listens to the filter and to the
// kernel's announcements, so it needs no interval and costs nothing while nothing happens.
// A volume on record as `receiving` is left to the migration that fills it: it changes the volume's table itself.
// Owns a thread; the store must outlive it. Thread-safety: made and destroyed by one thread.
#pragma once

#include <memory>

#include "base/result.h"
#include "store/ownership_store.h"

namespace ferry::daemon {

class BarWatch {
 public:
  // Listens when it returns; what is wrong already is looked for at once. A missing module is no error.
  static Result<BarWatch> start(const store::OwnershipStore& store);
  BarWatch(BarWatch&&) noexcept;
  BarWatch& operator=(BarWatch&&) noexcept;
  // Waits for a look that is under way.
  ~BarWatch();

 private:
  class Watcher;
  explicit BarWatch(std::unique_ptr<Watcher> watcher);
  std::unique_ptr<Watcher> watcher_;
};

}  // namespace ferry::daemon
