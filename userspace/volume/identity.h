// SPDX-License-Identifier: GPL-2.0-or-later
// What a block device calls itself, whatever its path is: so that another volume that has come to
// lie under a known path is not taken for the known one.
// Thread-safety: plain functions; they look at sysfs, and for partitions at the partition table.
#pragma once

#include <map>
#include <string>

namespace ferry::volume {

// `sysfs`: the device's directory, /sys/dev/block/MAJOR:MINOR. Empty when the device has nothing that
// stays the same across reboots (loop, ram). One of, with the source in front except for dm:
//   the dm uuid ("LVM-…", "mpath-…"; empty when the dm device was made without one),
//   "partuuid-…", "wwid-…", "serial-…", and for a partition without uuid its disk's and "-partN".
// Never reads from the volume itself.
std::string identity_of(const std::string& sysfs);

// All device-mapper devices that have an identity, by it: their nodes, /dev/dm-N. Unlike a volume's usual path a node
// is there as soon as its device is, and stays what it is when the volume is renamed.
std::map<std::string, std::string> mapped_devices(const std::string& sysfs = "/sys/block");

}  // namespace ferry::volume
