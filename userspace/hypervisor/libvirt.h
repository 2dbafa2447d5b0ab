// SPDX-License-Identifier: GPL-2.0-or-later
// Libvirt: one connection to a libvirt daemon, local or (through a FinishGate's URI) the
// destination's, and what a migration asks of it. Owns the connection; every libvirt object is
// released before a call returns. Thread-safety: all methods from any thread, several at a time
// (abort_migration and memory_progress are meant to be called beside a blocked migrate).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "hypervisor/domain.h"

struct _virConnect;

namespace ferry::hypervisor {

struct MigrateRequest {
  std::string vm;
  std::string destination_uri;  // FinishGate::uri()
  std::string memory_uri;       // tcp://<peer link address>: where QEMU sends the memory
  std::optional<std::string> listen_address;   // where the destination's QEMU listens
  std::optional<std::string> destination_xml;  // when disk paths differ over there
  std::optional<std::string> persistent_xml;   // the same for the definition that stays
  uint32_t max_downtime_ms = 0;                // 0: the hypervisor's default
  uint64_t bandwidth_mib_s = 0;                // 0: no limit
  bool auto_converge = false;
  bool undefine_source = true;
};

struct MemoryProgress {
  bool active = false;  // false: no migration runs, all else is 0
  uint64_t total_bytes = 0;
  uint64_t processed_bytes = 0;
  uint64_t remaining_bytes = 0;
  uint64_t rate_bytes_per_s = 0;
  uint64_t dirty_rate_bytes_per_s = 0;
  uint64_t iteration = 0;
};

enum class LifecycleEvent {
  paused_for_migration,  // on the source: the guest stands still, its last memory is on its way
  paused,
  resumed,  // also on the source when libvirt rolls a migration back
  started,
  stopped,  // gone from this host, whatever the reason
  other,
};
const char* lifecycle_name(LifecycleEvent event);
using LifecycleCallback = std::function<void(const std::string& vm, LifecycleEvent event)>;

class Libvirt {
 public:
  static Result<std::unique_ptr<Libvirt>> connect(const std::string& uri);
  ~Libvirt();
  Libvirt(const Libvirt&) = delete;
  Libvirt& operator=(const Libvirt&) = delete;

  // `vm` is a name or a UUID everywhere. Unknown: not_found. Reads the headers of images, too, so it
  // is for this host's own libvirt.
  Result<DomainInfo> inspect(const std::string& vm);
  // Its disks as libvirt has them now; nothing is read from them, so that image_fault stays empty.
  Result<std::vector<DomainDisk>> disks(const std::string& vm);
  // Only name, uuid, id, state and reason.
  Result<DomainInfo> state(const std::string& vm);
  Status check_migratable(const std::string& vm);
  // The XML for the destination with the disks' paths replaced (old → new): of the live VM, and of
  // its definition.
  Result<std::string> destination_xml(const std::string& vm,
                                      const std::map<std::string, std::string>& paths);
  Result<std::string> persistent_xml(const std::string& vm,
                                     const std::map<std::string, std::string>& paths);

  // Blocks until libvirt ends the migration. ok: the guest runs on the destination.
  Status migrate(const MigrateRequest& request);
  Status abort_migration(const std::string& vm);
  Result<MemoryProgress> memory_progress(const std::string& vm);
  Status set_max_downtime(const std::string& vm, uint32_t max_downtime_ms);

  // Removes the paused rest of a migration that did not end from the destination. Refuses (busy)
  // a VM in any other state; ok when there is none.
  Status destroy_incoming(const std::string& vm);
  Status destroy(const std::string& vm);
  Status resume(const std::string& vm);

  // The callback runs on libvirt's event thread and must not call into Libvirt; it is not called
  // any more once the destructor has returned.
  Status on_lifecycle(LifecycleCallback callback);
  bool alive() const;

 private:
  struct Subscription;
  Libvirt(_virConnect* connection, std::string uri);

  _virConnect* const connection_;
  const std::string uri_;
  std::mutex mutex_;
  std::vector<std::pair<int, std::shared_ptr<Subscription>>> subscriptions_;
};

}  // namespace ferry::hypervisor
