// SPDX-License-Identifier: GPL-2.0-or-later
// ferry-record DB HOLDING PATH…: puts records of one session for the volumes under these paths, as a migration does,
// one generation above what is there. With the holding "owned" it lifts their bars, too.
// Exit status 0 when that is done and durable.
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "daemon/bars.h"
#include "store/ownership_store.h"
#include "volume/volume.h"

namespace ferry {
namespace {

std::string fresh_uuid() {
  std::string uuid;
  std::getline(std::ifstream("/proc/sys/kernel/random/uuid"), uuid);
  return uuid;
}

Result<store::DiskRecord> record_of(const store::OwnershipStore& store, const std::string& path) {
  auto old = store.by_path(path);
  if (!old) return std::move(old).error();
  store::DiskRecord disk;
  if (*old) {
    disk = **old;
  } else {
    auto volume = volume::identify(path);
    if (!volume) return std::move(volume).error();
    disk.uuid = fresh_uuid();
    disk.path = path;
    disk.volume_id = volume->id;
    disk.role = "data";
  }
  ++disk.generation;
  disk.session = "by-hand";
  disk.target = path.substr(path.rfind('/') + 1);
  disk.reason = "recorded by hand";
  return disk;
}

Status run(const std::string& database, const std::string& holding_text, const std::vector<std::string>& paths) {
  const auto holding = store::holding_from_name(holding_text);
  if (!holding) return make_error(Errc::usage, "unknown holding " + holding_text);
  auto store = store::OwnershipStore::open(database);
  if (!store) return std::move(store).error();
  std::vector<store::DiskRecord> disks;
  for (const auto& path : paths) {
    auto disk = record_of(*store, path);
    if (!disk) return std::move(disk).error();
    disk->holding = *holding;
    disks.push_back(std::move(*disk));
  }
  FERRY_TRY(store->put({"by-hand", "web1", "hostb:7391", "hostb", true, ""}, disks));
  for (const auto& disk : disks)
    if (*holding == store::Holding::owned) FERRY_TRY(daemon::unbar_volume(disk));
  return ok_status();
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fputs("usage: ferry-record DB HOLDING PATH…\n", stderr);
    return 2;
  }
  auto done = ferry::run(argv[1], argv[2], {argv + 3, argv + argc});
  if (done) return 0;
  std::fprintf(stderr, "ferry-record: %s\n", done.error().message().c_str());
  return 1;
}
