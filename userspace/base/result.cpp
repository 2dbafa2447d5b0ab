// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/result.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace ferry {
namespace {

struct ErrcRow {
  Errc code;
  std::string_view name;
  int exit_code;
};

constexpr std::array kRows{
    ErrcRow{Errc::failed, "failed", 1},
    ErrcRow{Errc::usage, "usage", 2},
    ErrcRow{Errc::not_found, "not_found", 3},
    ErrcRow{Errc::permission, "permission", 3},
    ErrcRow{Errc::busy, "busy", 4},
    ErrcRow{Errc::no_space, "no_space", 1},
    ErrcRow{Errc::size_mismatch, "size_mismatch", 1},
    ErrcRow{Errc::peer_unreachable, "peer_unreachable", 1},
    ErrcRow{Errc::peer_refused, "peer_refused", 1},
    ErrcRow{Errc::protocol, "protocol", 1},
    ErrcRow{Errc::io, "io", 1},
    ErrcRow{Errc::unsupported, "unsupported", 1},
    ErrcRow{Errc::timeout, "timeout", 1},
    ErrcRow{Errc::aborted, "aborted", 1},
    ErrcRow{Errc::not_converged, "not_converged", 5},
    ErrcRow{Errc::verify_mismatch, "verify_mismatch", 6},
    ErrcRow{Errc::cleanup_incomplete, "cleanup_incomplete", 7},
    ErrcRow{Errc::owner_unknown, "owner_unknown", 8},
};

const ErrcRow& row_of(Errc code) {
  for (const auto& row : kRows)
    if (row.code == code) return row;
  return kRows[0];
}

}  // namespace

std::string_view errc_name(Errc code) { return row_of(code).name; }

std::optional<Errc> errc_from_name(std::string_view name) {
  for (const auto& row : kRows)
    if (row.name == name) return row.code;
  return std::nullopt;
}

int exit_code(Errc code) { return row_of(code).exit_code; }

std::string Error::message() const {
  std::string text = what;
  if (sys != 0) text += std::string(": ") + std::strerror(sys);
  if (!hint.empty()) text += "; " + hint;
  return text;
}

Error make_error(Errc code, std::string what, int sys, std::string hint) {
  return Error{code, std::move(what), sys, std::move(hint)};
}

Errc errc_from_errno(int sys) {
  switch (sys) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return Errc::not_found;
    case EACCES:
    case EPERM:
      return Errc::permission;
    case EBUSY:
    case EEXIST:
      return Errc::busy;
    case ENOSPC:
      return Errc::no_space;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ECONNRESET:
    case EPIPE:
      return Errc::peer_unreachable;
    case ETIMEDOUT:
      return Errc::timeout;
    case EOPNOTSUPP:
    case ENOTTY:
    case ENOSYS:
      return Errc::unsupported;
    case EIO:
      return Errc::io;
    default:
      return Errc::failed;
  }
}

Error sys_error(std::string what, int sys, std::string hint) {
  return make_error(errc_from_errno(sys), std::move(what), sys, std::move(hint));
}

}  // namespace ferry
