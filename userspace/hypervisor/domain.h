// SPDX-License-Identifier: GPL-2.0-or-later
// What the daemon knows about a VM: its state, its disks, and whether it may move. Pure values and
// functions over libvirt's domain XML; no connection is needed.
// Ownership: plain values. Thread-safety: free functions without shared state.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace ferry::hypervisor {

struct DomainDisk {
  std::string target;     // vda
  std::string path;       // /dev/vg/web01
  std::string serial;
  std::string cache;      // none, directsync, … ; empty: the hypervisor's default
  std::string type;       // block, file, network, …
  std::string format;     // raw, qcow2, …
  std::string device;     // disk, cdrom, lun, floppy
  bool readonly = false;
  bool shareable = false;
  bool has_backing = false;  // an overlay on another image
  bool has_job = false;      // a block copy or commit is under way
  std::string image_fault;   // why an image in it cannot move, as its own header says; else empty
};

// Whether Ferry has to move this disk. A disk marked shareable, and a read-only block device, are
// by the admin's word the same (or each host's own) on both hosts: they are left alone.
bool moves_with_vm(const DomainDisk& disk);

struct DomainInfo {
  enum class State { running, paused, shut_off, other };

  std::string name;
  std::string uuid;
  int id = -1;  // -1 while not active
  State state = State::other;
  std::string reason;  // libvirt's word for why, for example "paused for migration"
  uint64_t memory_kib = 0;
  std::vector<DomainDisk> disks;  // empty drives are left out
  std::vector<std::string> host_bound;  // devices that cannot leave this host, in words
  int snapshots = 0;
  bool persistent = false;
};
const char* state_name(DomainInfo::State state);

// One line of "may this VM move?", shown by the plan.
struct DomainCheck {
  std::string name;  // "running", "disk vda", …
  bool ok = false;
  std::string detail;
  std::string hint;  // what to change, empty when ok
};
std::vector<DomainCheck> migration_checks(const DomainInfo& domain);
// The first failed check as an error.
Status check_migratable(const DomainInfo& domain);

// Reads name, uuid, memory, disks and host_bound.
Result<DomainInfo> parse_domain_xml(const std::string& xml);
// The same XML with the source paths of its disks replaced (old path → new path). A path of the
// map that no disk has is an error.
Result<std::string> replace_disk_paths(const std::string& xml,
                                       const std::map<std::string, std::string>& paths);

}  // namespace ferry::hypervisor
