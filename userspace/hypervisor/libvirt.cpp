// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/libvirt.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <cstdlib>

#include "base/log.h"
#include "hypervisor/libvirt_error.h"
#include "hypervisor/libvirt_events.h"
#include "hypervisor/qcow2_header.h"

namespace ferry::hypervisor {
namespace {

// Towards the destination: a dead link during the memory copy is noticed after half a minute. From
// Finish on the gate answers these itself, so a hold may last as long as it must. The local
// connection gets none: a busy daemon is not a dead one, and its socket closes when it dies.
constexpr int kKeepaliveIntervalSeconds = 5;
constexpr unsigned kKeepaliveCount = 6;

struct FreeDomain {
  void operator()(virDomain* domain) const { virDomainFree(domain); }
};
using DomainPtr = std::unique_ptr<virDomain, FreeDomain>;
struct CloseConnection {
  void operator()(virConnect* connection) const { virConnectClose(connection); }
};
using ConnectionPtr = std::unique_ptr<virConnect, CloseConnection>;
struct FreeText {
  void operator()(char* text) const { std::free(text); }
};
using Text = std::unique_ptr<char, FreeText>;

class TypedParameters {
 public:
  TypedParameters() = default;
  TypedParameters(const TypedParameters&) = delete;
  TypedParameters& operator=(const TypedParameters&) = delete;
  ~TypedParameters() { virTypedParamsFree(list_, count_); }

  void add(const char* name, const std::string& value) {
    good_ &= virTypedParamsAddString(&list_, &count_, &room_, name, value.c_str()) == 0;
  }
  void add(const char* name, unsigned long long value) {
    good_ &= virTypedParamsAddULLong(&list_, &count_, &room_, name, value) == 0;
  }
  uint64_t get(const char* name) const {
    unsigned long long value = 0;
    virTypedParamsGetULLong(list_, count_, name, &value);
    return value;
  }
  bool good() const { return good_; }
  virTypedParameterPtr list() const { return list_; }
  unsigned count() const { return static_cast<unsigned>(count_); }
  virTypedParameterPtr* list_out() { return &list_; }
  int* count_out() { return &count_; }

 private:
  virTypedParameterPtr list_ = nullptr;
  int count_ = 0;
  int room_ = 0;
  bool good_ = true;
};

Result<ConnectionPtr> open(const std::string& uri) {
  FERRY_TRY(ensure_libvirt_events());
  ConnectionPtr connection(virConnectOpen(uri.c_str()));
  if (!connection) return libvirt_error("cannot connect to libvirt at " + uri);
  return connection;
}

// A URI with a socket of its own is a gate to another host.
bool leads_elsewhere(const std::string& uri) { return uri.find("?socket=") != uri.npos; }

Status watch_link(virConnect* connection) {
  if (virConnectSetKeepAlive(connection, kKeepaliveIntervalSeconds, kKeepaliveCount) < 0)
    return libvirt_error("cannot watch the connection to the destination's libvirt");
  return ok_status();
}

Result<DomainPtr> find(virConnect* connection, const std::string& vm) {
  DomainPtr domain(virDomainLookupByName(connection, vm.c_str()));
  if (domain) return domain;
  const virError* error = virGetLastError();
  if (error && error->code == VIR_ERR_NO_DOMAIN) {
    // The message for an unknown VM shall speak of the name, so the error is taken first.
    Error unknown = libvirt_error("unknown VM " + vm);
    unknown.what = "unknown VM " + vm;
    domain.reset(virDomainLookupByUUIDString(connection, vm.c_str()));
    if (domain) return domain;
    return unknown;
  }
  return libvirt_error("cannot look up VM " + vm);
}

DomainInfo::State state_of(int state) {
  switch (state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
      return DomainInfo::State::running;
    case VIR_DOMAIN_PAUSED:
      return DomainInfo::State::paused;
    case VIR_DOMAIN_SHUTOFF:
      return DomainInfo::State::shut_off;
    default:
      return DomainInfo::State::other;
  }
}

std::string reason_of(int state, int reason) {
  if (state == VIR_DOMAIN_RUNNING) {
    switch (reason) {
      case VIR_DOMAIN_RUNNING_BOOTED: return "booted";
      case VIR_DOMAIN_RUNNING_MIGRATED: return "migrated";
      case VIR_DOMAIN_RUNNING_UNPAUSED: return "resumed";
      case VIR_DOMAIN_RUNNING_MIGRATION_CANCELED: return "migration cancelled";
      default: return "running";
    }
  }
  if (state == VIR_DOMAIN_PAUSED) {
    switch (reason) {
      case VIR_DOMAIN_PAUSED_USER: return "paused by hand";
      case VIR_DOMAIN_PAUSED_MIGRATION: return "paused for migration";
      case VIR_DOMAIN_PAUSED_STARTING_UP: return "starting up";
      case VIR_DOMAIN_PAUSED_IOERROR: return "paused after a disk error";
      default: return "paused";
    }
  }
  return {};
}

Status fill_state(virDomain* domain, DomainInfo& info) {
  int state = 0;
  int reason = 0;
  if (virDomainGetState(domain, &state, &reason, 0) < 0)
    return libvirt_error("cannot read the state of VM " + info.name);
  info.state = state_of(state);
  info.reason = reason_of(state, reason);
  const unsigned id = virDomainGetID(domain);
  info.id = id == static_cast<unsigned>(-1) ? -1 : static_cast<int>(id);
  return ok_status();
}

Result<std::string> xml_of(virDomain* domain, unsigned flags, const std::string& vm) {
  Text xml(virDomainGetXMLDesc(domain, flags));
  if (!xml) return libvirt_error("cannot read the definition of VM " + vm);
  return std::string(xml.get());
}

Result<DomainInfo> configuration_of(virDomain* domain, const std::string& vm) {
  auto xml = xml_of(domain, 0, vm);
  if (!xml.ok()) return xml.error();
  return parse_domain_xml(*xml);
}

std::string image_fault(const DomainDisk& disk) {
  if (disk.type != "block" || disk.format != "qcow2" || !moves_with_vm(disk)) return {};
  auto header = read_qcow2_header(disk.path);
  if (!header.ok()) return header.error().message();
  if (header->data_elsewhere) return "the image's data lies in another file, which would stay behind";
  if (header->marked_corrupt) return "the image is marked as corrupt";
  return {};
}

LifecycleEvent event_of(int event, int detail) {
  switch (event) {
    case VIR_DOMAIN_EVENT_STARTED: return LifecycleEvent::started;
    case VIR_DOMAIN_EVENT_RESUMED: return LifecycleEvent::resumed;
    case VIR_DOMAIN_EVENT_STOPPED: return LifecycleEvent::stopped;
    case VIR_DOMAIN_EVENT_SUSPENDED:
      return detail == VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED ? LifecycleEvent::paused_for_migration
                                                           : LifecycleEvent::paused;
    default: return LifecycleEvent::other;
  }
}

}  // namespace

const char* lifecycle_name(LifecycleEvent event) {
  switch (event) {
    case LifecycleEvent::paused_for_migration: return "paused for migration";
    case LifecycleEvent::paused: return "paused";
    case LifecycleEvent::resumed: return "resumed";
    case LifecycleEvent::started: return "started";
    case LifecycleEvent::stopped: return "stopped";
    case LifecycleEvent::other: return "other";
  }
  return "other";
}

// Outlives the Libvirt object when an event is just being delivered.
struct Libvirt::Subscription {
  std::mutex mutex;
  LifecycleCallback callback;  // empty once the owner is gone
};

Result<std::unique_ptr<Libvirt>> Libvirt::connect(const std::string& uri) {
  auto connection = open(uri);
  if (!connection.ok()) return connection.error();
  if (leads_elsewhere(uri)) FERRY_TRY(watch_link(connection->get()));
  return std::unique_ptr<Libvirt>(new Libvirt(connection->release(), uri));
}

Libvirt::Libvirt(_virConnect* connection, std::string uri)
    : connection_(connection), uri_(std::move(uri)) {}

Libvirt::~Libvirt() {
  for (auto& [id, subscription] : subscriptions_) {
    virConnectDomainEventDeregisterAny(connection_, id);
    std::lock_guard lock(subscription->mutex);
    subscription->callback = nullptr;
  }
  virConnectClose(connection_);
}

bool Libvirt::alive() const { return virConnectIsAlive(connection_) == 1; }

Result<std::vector<DomainDisk>> Libvirt::disks(const std::string& vm) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  auto info = configuration_of(domain->get(), vm);
  if (!info.ok()) return info.error();
  return std::move(info->disks);
}

Result<DomainInfo> Libvirt::inspect(const std::string& vm) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  auto info = configuration_of(domain->get(), vm);
  if (!info.ok()) return info.error();
  for (auto& disk : info->disks) disk.image_fault = image_fault(disk);
  FERRY_TRY(fill_state(domain->get(), *info));
  info->persistent = virDomainIsPersistent(domain->get()) == 1;
  info->snapshots = virDomainSnapshotNum(domain->get(), 0);
  if (info->snapshots < 0) return libvirt_error("cannot count the snapshots of VM " + vm);
  return info;
}

Result<DomainInfo> Libvirt::state(const std::string& vm) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  DomainInfo info;
  info.name = virDomainGetName(domain->get());
  char uuid[VIR_UUID_STRING_BUFLEN] = {};
  if (virDomainGetUUIDString(domain->get(), uuid) == 0) info.uuid = uuid;
  FERRY_TRY(fill_state(domain->get(), info));
  return info;
}

Status Libvirt::check_migratable(const std::string& vm) {
  auto info = inspect(vm);
  if (!info.ok()) return info.error();
  return hypervisor::check_migratable(*info);
}

Result<std::string> Libvirt::destination_xml(const std::string& vm,
                                             const std::map<std::string, std::string>& paths) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  auto xml = xml_of(domain->get(), VIR_DOMAIN_XML_MIGRATABLE | VIR_DOMAIN_XML_SECURE, vm);
  if (!xml.ok()) return xml.error();
  return replace_disk_paths(*xml, paths);
}

Result<std::string> Libvirt::persistent_xml(const std::string& vm,
                                            const std::map<std::string, std::string>& paths) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  auto xml = xml_of(domain->get(),
                    VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_MIGRATABLE | VIR_DOMAIN_XML_SECURE,
                    vm);
  if (!xml.ok()) return xml.error();
  return replace_disk_paths(*xml, paths);
}

Status Libvirt::migrate(const MigrateRequest& request) {
  auto domain = find(connection_, request.vm);
  if (!domain.ok()) return domain.error();
  auto destination = open(request.destination_uri);
  if (!destination.ok()) return destination.error();
  FERRY_TRY(watch_link(destination->get()));
  if (request.max_downtime_ms != 0) FERRY_TRY(set_max_downtime(request.vm, request.max_downtime_ms));

  TypedParameters parameters;
  parameters.add(VIR_MIGRATE_PARAM_URI, request.memory_uri);
  if (request.listen_address)
    parameters.add(VIR_MIGRATE_PARAM_LISTEN_ADDRESS, *request.listen_address);
  if (request.destination_xml)
    parameters.add(VIR_MIGRATE_PARAM_DEST_XML, *request.destination_xml);
  if (request.bandwidth_mib_s != 0)
    parameters.add(VIR_MIGRATE_PARAM_BANDWIDTH,
                   static_cast<unsigned long long>(request.bandwidth_mib_s));

  unsigned flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_ABORT_ON_ERROR;
  if (virDomainIsPersistent(domain->get()) == 1) {
    flags |= VIR_MIGRATE_PERSIST_DEST;
    if (request.undefine_source) flags |= VIR_MIGRATE_UNDEFINE_SOURCE;
    if (request.persistent_xml)
      parameters.add(VIR_MIGRATE_PARAM_PERSIST_XML, *request.persistent_xml);
  }
  if (request.auto_converge) flags |= VIR_MIGRATE_AUTO_CONVERGE;
  if (!parameters.good())
    return libvirt_error("cannot build the migration parameters of VM " + request.vm);

  DomainPtr moved(virDomainMigrate3(domain->get(), destination->get(), parameters.list(),
                                    parameters.count(), flags));
  if (!moved) return libvirt_error("libvirt did not migrate VM " + request.vm);
  return ok_status();
}

Status Libvirt::abort_migration(const std::string& vm) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  if (virDomainAbortJob(domain->get()) < 0)
    return libvirt_error("cannot abort the migration of VM " + vm);
  return ok_status();
}

Result<MemoryProgress> Libvirt::memory_progress(const std::string& vm) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  TypedParameters stats;
  int type = VIR_DOMAIN_JOB_NONE;
  if (virDomainGetJobStats(domain->get(), &type, stats.list_out(), stats.count_out(), 0) < 0)
    return libvirt_error("cannot read the migration's progress of VM " + vm);
  MemoryProgress progress;
  if (type != VIR_DOMAIN_JOB_BOUNDED && type != VIR_DOMAIN_JOB_UNBOUNDED) return progress;
  progress.active = true;
  progress.total_bytes = stats.get(VIR_DOMAIN_JOB_MEMORY_TOTAL);
  progress.processed_bytes = stats.get(VIR_DOMAIN_JOB_MEMORY_PROCESSED);
  progress.remaining_bytes = stats.get(VIR_DOMAIN_JOB_MEMORY_REMAINING);
  progress.rate_bytes_per_s = stats.get(VIR_DOMAIN_JOB_MEMORY_BPS);
  progress.dirty_rate_bytes_per_s =
      stats.get(VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE) * stats.get(VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE);
  progress.iteration = stats.get(VIR_DOMAIN_JOB_MEMORY_ITERATION);
  return progress;
}

Status Libvirt::set_max_downtime(const std::string& vm, uint32_t max_downtime_ms) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  if (virDomainMigrateSetMaxDowntime(domain->get(), max_downtime_ms, 0) < 0)
    return libvirt_error("cannot set the downtime limit of VM " + vm);
  return ok_status();
}

Status Libvirt::destroy_incoming(const std::string& vm) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) {
    if (domain.error().code == Errc::not_found) return ok_status();
    return domain.error();
  }
  int state = 0;
  int reason = 0;
  if (virDomainGetState(domain->get(), &state, &reason, 0) < 0)
    return libvirt_error("cannot read the state of VM " + vm);
  const bool incoming = state == VIR_DOMAIN_PAUSED && (reason == VIR_DOMAIN_PAUSED_MIGRATION ||
                                                       reason == VIR_DOMAIN_PAUSED_STARTING_UP);
  if (!incoming)
    return make_error(Errc::busy,
                      "VM " + vm + " is no leftover of a migration: it is " +
                          state_name(state_of(state)) + ", " + reason_of(state, reason),
                      0, "look at it on that host: virsh domstate --reason " + vm);
  if (virDomainDestroy(domain->get()) < 0)
    return libvirt_error("cannot remove the incoming VM " + vm);
  return ok_status();
}

Status Libvirt::destroy(const std::string& vm) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  if (virDomainDestroy(domain->get()) < 0) return libvirt_error("cannot destroy VM " + vm);
  return ok_status();
}

Status Libvirt::resume(const std::string& vm) {
  auto domain = find(connection_, vm);
  if (!domain.ok()) return domain.error();
  if (virDomainResume(domain->get()) < 0) return libvirt_error("cannot resume VM " + vm);
  return ok_status();
}

Status Libvirt::on_lifecycle(LifecycleCallback callback) {
  auto subscription = std::make_shared<Subscription>();
  subscription->callback = std::move(callback);
  virConnectDomainEventCallback deliver = [](virConnectPtr, virDomainPtr domain, int event,
                                             int detail, void* opaque) {
    auto& held = *static_cast<std::shared_ptr<Subscription>*>(opaque);
    std::lock_guard lock(held->mutex);
    if (held->callback) held->callback(virDomainGetName(domain), event_of(event, detail));
    return 0;
  };
  auto release = [](void* opaque) { delete static_cast<std::shared_ptr<Subscription>*>(opaque); };
  auto* opaque = new std::shared_ptr<Subscription>(subscription);
  const int id = virConnectDomainEventRegisterAny(connection_, nullptr,
                                                  VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                                  VIR_DOMAIN_EVENT_CALLBACK(deliver), opaque,
                                                  release);
  if (id < 0) {
    delete opaque;
    return libvirt_error("cannot watch the VMs at " + uri_);
  }
  std::lock_guard lock(mutex_);
  subscriptions_.emplace_back(id, std::move(subscription));
  return ok_status();
}

}  // namespace ferry::hypervisor
