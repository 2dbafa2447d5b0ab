// SPDX-License-Identifier: GPL-2.0-or-later
#include "owner_report.h"

#include <fmt/format.h>

#include <set>
#include <span>

#include "units.h"

namespace ferry::ctl {
namespace {

using api::OwnedDisk;

std::string owner_cell(const OwnedDisk& disk) {
  switch (disk.owner) {
    case api::DiskOwner::this_host: return "this host";
    case api::DiskOwner::peer: {
      const std::string host = disk.owner_host.value_or("the other host");
      return disk.owner_note.empty() ? host : fmt::format("{} ({})", host, disk.owner_note);
    }
    case api::DiskOwner::unknown: break;
  }
  return "unknown: " + (disk.owner_note.empty() ? std::string("no reason given") : disk.owner_note);
}

std::string barred_cell(const OwnedDisk& disk) {
  if (disk.volume == api::Presence::absent) return "not active";
  if (disk.volume == api::Presence::replaced) return "another volume";
  if (!disk.barred) return "not known";
  if (*disk.barred) return fmt::format("yes ({})", disk.filter.value_or("read-only"));
  return disk.must_be_barred ? "NO" : "no";
}

void print_warnings(const Console& console, std::span<const OwnedDisk> disks) {
  const auto warn = [&](const OwnedDisk& disk, const std::string& text) {
    print_out(fmt::format("  {} {}: {}", tinted(console.color_out, Tint::bad, "WARNING:"), printable(disk.path),
                          printable(text)));
  };
  for (const auto& disk : disks) {
    if (disk.volume == api::Presence::replaced)
      warn(disk, "another volume lies there than the one on record");
    else if (disk.must_be_barred && disk.barred == false)
      warn(disk, "nothing keeps it closed: start nothing that uses it; ferryd's log says why");
    else if (disk.owner == api::DiskOwner::this_host && disk.barred == true)
      warn(disk, "it is this host's, and closed all the same: migrate-ctl own --force " + disk.path);
  }
}

// The disks of one migration.
void print_session(const Console& console, std::span<const OwnedDisk> disks) {
  const auto& first = disks.front();
  const std::string peer = first.peer_host.empty() ? first.peer : fmt::format("{} ({})", first.peer_host, first.peer);
  print_out(tinted(console.color_out, Tint::bold,
                   fmt::format("{}: session {}, {} {}", printable(first.vm), printable(first.session),
                               first.direction == api::Direction::out ? "to" : "from", printable(peer))));
  Table table({"disk", "volume", "holding", "generation", "since", "barred", "owner"});
  std::set<std::string> reasons;
  for (const auto& disk : disks) {
    table.add({disk.target, disk.path, disk.holding, std::to_string(disk.generation),
               disk.since ? api::format_time(*disk.since) : "-", barred_cell(disk), owner_cell(disk)});
    reasons.insert(disk.reason);
  }
  table.print(console, "  ");
  // They change together, so there is one reason; a disk that has its own is named.
  if (reasons.size() == 1)
    print_out(fmt::format("  why: {}", printable(first.reason)));
  else
    for (const auto& disk : disks) print_out(fmt::format("  why {}: {}", printable(disk.target), printable(disk.reason)));
  if (first.holding == "given" && first.direction == api::Direction::out)
    print_out(first.verified ? "  both hosts' digests were equal: migrate-ctl release frees the volumes here"
                             : "  the two copies were not found equal, or not compared");
  print_warnings(console, disks);
}

}  // namespace

void print_owners(const Console& console, const api::OwnerList& list) {
  if (list.disks.empty()) {
    print_out(fmt::format("no disk is on record: none has left {}, none has come, none is on its way",
                          printable(list.host)));
    return;
  }
  const std::span<const OwnedDisk> all(list.disks);
  for (size_t begin = 0, end = 0; begin < all.size(); begin = end) {
    while (end < all.size() && all[end].session == all[begin].session) ++end;
    print_session(console, all.subspan(begin, end - begin));
  }
}

}  // namespace ferry::ctl
