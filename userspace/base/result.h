// SPDX-License-Identifier: GPL-2.0-or-later
// Result<T>: a value, or an Error that says what was tried, on what, and what the system answered.
// Recoverable errors travel as values; exceptions are left for broken invariants.
// Thread-safety: plain values, no shared state.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace ferry {

// The few kinds of failure the project knows. Each maps to one exit code of the client
// (exit_code()) and to one name in the API's "error.code" field (errc_name()).
enum class Errc {
  failed,             // anything without a kind of its own; the source still owns the VM
  usage,              // the request itself is malformed
  not_found,          // no such VM, host, volume or job
  permission,         // missing rights, wrong or missing key
  busy,               // somebody else holds the volume, the VM or the job
  no_space,           // the destination cannot hold the disk
  size_mismatch,      // an existing destination volume has another size
  peer_unreachable,   // the peer's daemon does not answer
  peer_refused,       // the peer answered and said no (authentication, version, policy)
  protocol,           // the peer broke the protocol
  io,                 // a device or file failed
  unsupported,        // this kernel, volume or hypervisor cannot do it
  timeout,            // it took longer than allowed
  aborted,            // the admin asked to stop
  not_converged,      // the guest writes faster than the link carries
  verify_mismatch,    // the two sides do not hold the same bytes
  cleanup_incomplete, // the job is done, something was left behind and is named
  owner_unknown,      // who owns the disks cannot be told: manual action
};

// Lower-case name as used in the API, for example "peer_unreachable".
std::string_view errc_name(Errc code);
// The inverse; nothing for an unknown name.
std::optional<Errc> errc_from_name(std::string_view name);
// Exit status of the client for this kind (documented in migrate-ctl(1)).
int exit_code(Errc code);

struct Error {
  Errc code = Errc::failed;
  std::string what;     // what was tried and on what: "cannot open /dev/vg/web1"
  int sys = 0;          // errno of the call that failed, 0 if none
  std::string hint;     // what the admin can do about it, empty if nothing is known

  // One line: what, the system's own words, and the hint.
  std::string message() const;
};

// Builds an Error; `sys` takes an errno.
Error make_error(Errc code, std::string what, int sys = 0, std::string hint = {});
// The kind that fits an errno (ENOENT → not_found, EACCES → permission, EBUSY → busy, …).
Errc errc_from_errno(int sys);
// Error whose kind comes from the errno itself.
Error sys_error(std::string what, int sys, std::string hint = {});

struct Unit {};

template <typename T = Unit>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  // Precondition of value()/operator*: ok(). Precondition of error(): !ok().
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, Error> state_;
};

using Status = Result<Unit>;
inline Status ok_status() { return Unit{}; }

}  // namespace ferry

// Returns the error of `expr` (a Result) from the enclosing function, else goes on.
#define FERRY_TRY(expr)                                       \
  do {                                                        \
    if (auto ferry_try_ = (expr); !ferry_try_.ok())           \
      return std::move(ferry_try_).error();                   \
  } while (0)
