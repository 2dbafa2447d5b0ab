// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/domain.h"

namespace ferry::hypervisor {
namespace {

DomainCheck passed(std::string name, std::string detail) {
  return {.name = std::move(name), .ok = true, .detail = std::move(detail), .hint = {}};
}

DomainCheck failed(std::string name, std::string detail, std::string hint) {
  return {.name = std::move(name), .ok = false, .detail = std::move(detail),
          .hint = std::move(hint)};
}

DomainCheck check_disk(const DomainDisk& disk) {
  const std::string name = "disk " + disk.target;
  if (!moves_with_vm(disk))
    return passed(name, disk.path + " stays as it is: the admin has put it on both hosts");
  if (disk.device != "disk")
    return failed(name, disk.path + " is a " + disk.device,
                  "eject it: only disks move with the VM");
  if (disk.type != "block")
    return failed(name, disk.path + " has type " + disk.type,
                  "put it on a block device (an LVM volume), <disk type='block'>");
  // Only these are known to end all their writing before Finish (docs/how-it-works.md).
  if (disk.format != "raw" && disk.format != "qcow2")
    return failed(name, disk.path + " has format " + disk.format,
                  "use a raw or qcow2 volume, <driver type='raw'>");
  if (disk.has_backing)
    return failed(name, disk.path + " is an overlay on another image", "commit it first");
  if (!disk.image_fault.empty())
    return failed(name, disk.path + ": " + disk.image_fault, "look at it: qemu-img info -U " + disk.path);
  if (disk.has_job)
    return failed(name, disk.path + " has a block job", "wait for it or cancel it");
  if (disk.cache != "none" && disk.cache != "directsync")
    return failed(name,
                  disk.path + " has cache mode " + (disk.cache.empty() ? "default" : disk.cache),
                  "set cache='none' in <driver> and restart the VM");
  return passed(name, disk.path);
}

}  // namespace

bool moves_with_vm(const DomainDisk& disk) {
  return !disk.shareable && !(disk.readonly && disk.type == "block");
}

const char* state_name(DomainInfo::State state) {
  switch (state) {
    case DomainInfo::State::running: return "running";
    case DomainInfo::State::paused: return "paused";
    case DomainInfo::State::shut_off: return "shut off";
    case DomainInfo::State::other: return "other";
  }
  return "other";
}

std::vector<DomainCheck> migration_checks(const DomainInfo& domain) {
  std::vector<DomainCheck> checks;
  if (domain.state == DomainInfo::State::running)
    checks.push_back(passed("running", domain.reason));
  else
    checks.push_back(failed("running", std::string("it is ") + state_name(domain.state) +
                                           (domain.reason.empty() ? "" : ": " + domain.reason),
                            "start or resume it first: virsh start|resume " + domain.name));
  if (domain.disks.empty())
    checks.push_back(failed("disks", "it has no disk", "a VM without disks needs no Ferry"));
  for (const auto& disk : domain.disks) checks.push_back(check_disk(disk));
  if (domain.host_bound.empty()) {
    checks.push_back(passed("devices", "no device is bound to this host"));
  } else {
    std::string list;
    for (const auto& device : domain.host_bound) list += (list.empty() ? "" : ", ") + device;
    checks.push_back(failed("devices", list, "detach what cannot leave this host"));
  }
  if (domain.snapshots == 0)
    checks.push_back(passed("snapshots", "none"));
  else
    checks.push_back(failed("snapshots", std::to_string(domain.snapshots) + " snapshots",
                            "delete them: virsh snapshot-list " + domain.name));
  return checks;
}

Status check_migratable(const DomainInfo& domain) {
  for (const auto& check : migration_checks(domain))
    if (!check.ok)
      return make_error(Errc::unsupported,
                        "VM " + domain.name + " cannot move: " + check.name + ": " + check.detail,
                        0, check.hint);
  return ok_status();
}

}  // namespace ferry::hypervisor
