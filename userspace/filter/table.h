// SPDX-License-Identifier: GPL-2.0-or-later
// Device-mapper tables as values, and the step between a volume's own lines and ferry lines.
// Pure: nothing here talks to the kernel. Thread-safety: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "filter/uuid.h"

namespace ferry::filter {

struct DmLine {
  uint64_t start = 0;   // sectors of 512 bytes
  uint64_t length = 0;
  std::string type;
  std::string params;   // exactly as the kernel prints them

  bool operator==(const DmLine&) const = default;
};

using DmTable = std::vector<DmLine>;

// The text `dmsetup table` prints: one line each, no closing newline.
std::string to_text(const DmTable& table);
// The inverse; nothing when a line has not the form "<start> <length> <type>[ <params>]".
std::optional<DmTable> parse_table(std::string_view text);

uint64_t sectors_of(const DmTable& table);
bool all_lines_are(const DmTable& table, std::string_view type);

// The fields of a ferry line: "<device> <offset> <uuid>".
struct FerryLine {
  std::string device;   // "major:minor"
  uint64_t offset = 0;  // sectors
  TrackerUuid uuid{};
};
std::optional<FerryLine> parse_ferry_line(const DmLine& line);

// The one tracker that the table's ferry lines name. Nothing when a line is not a ferry line, or
// when two lines disagree.
std::optional<TrackerUuid> tracker_of(const DmTable& table);

// linear lines → ferry lines over the same devices and offsets. Precondition: all lines linear.
DmTable linear_to_ferry(const DmTable& table, const TrackerUuid& uuid);
// The inverse; an error when a line is no well-formed ferry line.
Result<DmTable> ferry_to_linear(const DmTable& table);
// One ferry line over a whole lower device, for volumes that are not made of linear lines.
DmTable stacked_ferry(const std::string& device, uint64_t sectors, const TrackerUuid& uuid);

// True for target types of which a second instance may exist over the same devices for a moment,
// which stacking needs. Types with metadata of their own on disk (raid, cache) do not allow it.
bool may_be_stacked(std::string_view type);

// Names of the devices that belong to a filtered volume.
std::string door_name(const std::string& volume);
std::string lower_name(const std::string& volume);
// Their dm uuids: the volume's own uuid with a suffix, so that LVM's udev rules see a hidden layer
// of the volume and keep away from what is inside (the guest's own volume groups).
std::string door_uuid(const std::string& volume_uuid, const std::string& volume_name);
std::string lower_uuid(const std::string& volume_uuid, const std::string& volume_name);
// By both: anybody may call a volume "ferry".
bool is_own_device(const std::string& name, const std::string& uuid);

}  // namespace ferry::filter
