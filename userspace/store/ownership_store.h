// SPDX-License-Identifier: GPL-2.0-or-later
// OwnershipStore: the records of who owns which disk, durable in one SQLite file. What put() has
// returned for survives a crash of the daemon and a power cut of the host; everything that relies on
// a record (a fence's grant, an opened gate) comes after its put().
// Errors: permission, no_space, busy, io (a damaged file, too: it is never made anew by itself),
// unsupported (written by a newer Ferry). Each message says what to do.
// Thread-safety: any thread; several processes may have the file open. Move-only; moving is not safe
// while others call.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/disk_record.h"

namespace ferry::store {

class OwnershipStore {
 public:
  // `path`: the file, made when it does not exist; its directory must. Takes the whole file's check,
  // which is fast: there is a row for a disk, not for a block.
  static Result<OwnershipStore> open(const std::string& path);
  OwnershipStore(OwnershipStore&&) noexcept;
  OwnershipStore& operator=(OwnershipStore&&) noexcept;
  ~OwnershipStore();

  // All of it or nothing, and on stable storage when it returns. Sets changed_at. A disk's record
  // replaces the older one of its uuid, and one of another disk with the same path; the session's
  // replaces the older one of its id. Refused (usage): a disk of another session, a uuid or path
  // twice, a uuid or path that is empty; (busy): a generation lower than the stored one.
  // After an io error nobody can tell whether it reached the disk: act as if it had not, and expect
  // that it may be there after a restart.
  Status put(const SessionRecord& session, const std::vector<DiskRecord>& disks);
  // Changes the errand of all sessions of a job, durably: those called like it, or like it with "-" and a number. None
  // of them is no error: the disks have moved on.
  Status set_errand(const std::string& job, const std::string& errand);
  // Erases disks, and the sessions that no disk refers to then. Unknown uuids are no error.
  Status forget(const std::vector<std::string>& uuids);

  // By session and target.
  Result<std::vector<DiskRecord>> disks() const;
  Result<std::vector<DiskRecord>> of_session(const std::string& session_id) const;
  Result<std::optional<DiskRecord>> by_uuid(const std::string& uuid) const;
  Result<std::optional<DiskRecord>> by_path(const std::string& path) const;
  Result<std::optional<SessionRecord>> session(const std::string& session_id) const;

 private:
  struct State;
  explicit OwnershipStore(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ferry::store
