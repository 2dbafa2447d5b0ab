// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/ownership_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <mutex>
#include <set>
#include <utility>

#include "base/fd.h"
#include "store/sqlite.h"

namespace ferry::store {
namespace {

// "FRRY": tells our file from another program's.
constexpr std::int64_t kApplicationId = 0x46525259;
constexpr std::int64_t kSchemaVersion = 2;

constexpr const char* kSchema = R"sql(
  CREATE TABLE session (
    id TEXT PRIMARY KEY, vm TEXT NOT NULL, peer TEXT NOT NULL, peer_host TEXT NOT NULL,
    outgoing INTEGER NOT NULL, domain_xml TEXT NOT NULL, errand TEXT NOT NULL DEFAULT '') STRICT;
  CREATE TABLE disk (
    uuid TEXT PRIMARY KEY, generation INTEGER NOT NULL, holding TEXT NOT NULL,
    session TEXT NOT NULL REFERENCES session (id), target TEXT NOT NULL, path TEXT NOT NULL UNIQUE,
    volume_id TEXT NOT NULL, role TEXT NOT NULL, size_bytes INTEGER NOT NULL, created INTEGER NOT NULL,
    verified INTEGER NOT NULL, reason TEXT NOT NULL, changed_at INTEGER NOT NULL,
    digest TEXT NOT NULL DEFAULT '', tracker TEXT NOT NULL DEFAULT '',
    expires_at INTEGER NOT NULL DEFAULT 0) STRICT;
)sql";

// What each schema lacks of the next.
constexpr const char* kFromSchema1 = R"sql(
  ALTER TABLE session ADD COLUMN errand TEXT NOT NULL DEFAULT '';
  ALTER TABLE disk ADD COLUMN digest TEXT NOT NULL DEFAULT '';
  ALTER TABLE disk ADD COLUMN tracker TEXT NOT NULL DEFAULT '';
  ALTER TABLE disk ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr const char* kDiskColumns =
    "SELECT uuid, generation, holding, session, target, path, volume_id, role, size_bytes, created, verified, "
    "reason, changed_at, digest, tracker, expires_at FROM disk ";

std::string directory_of(const std::string& path) {
  auto parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

Status sync_directory(const std::string& path) {
  Fd directory(::open(directory_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || ::fsync(directory.get()) != 0)
    return sys_error("cannot make the directory of " + path + " durable", errno);
  return ok_status();
}

Error damaged(const std::string& path, const std::string& words) { return sqlite_error(path, SQLITE_CORRUPT, words); }

// The new file gets its name when it is complete and on the disk: a file of that name that is empty or has no tables
// is always a damaged one, never one that a power cut left half made.
Status create_file(const std::string& path) {
  std::string work = path + ".new-XXXXXX";
  Fd reserved(::mkostemp(work.data(), O_CLOEXEC));
  if (!reserved.valid())
    return sys_error("cannot make the ownership records " + path, errno,
                     "its directory must exist and be writable for root");
  Status made = [&]() -> Status {
    auto database = Database::open(work, SQLITE_OPEN_READWRITE);
    if (!database) return std::move(database).error();
    // Write-ahead log: a put costs one flush of the disk, and most puts lie inside the guest's pause; a rollback
    // journal costs four or five. The file keeps the choice. A log's directory entry is flushed with its first flush.
    return database->run("PRAGMA synchronous = EXTRA; BEGIN;" + std::string(kSchema) +
                         "PRAGMA application_id = " + std::to_string(kApplicationId) +
                         "; PRAGMA user_version = " + std::to_string(kSchemaVersion) +
                         "; COMMIT; PRAGMA journal_mode = WAL");
  }();
  // link() and not rename(): of two that make the file at once, the second must not replace the first's.
  if (made.ok() && ::link(work.c_str(), path.c_str()) != 0 && errno != EEXIST)
    made = sys_error("cannot make the ownership records " + path, errno);
  ::unlink(work.c_str());
  FERRY_TRY(std::move(made));
  return sync_directory(path);
}

Status ensure_file(const std::string& path) {
  struct stat file {}, log {};
  const bool have_log = ::stat((path + "-wal").c_str(), &log) == 0 && log.st_size > 0;
  if (::stat(path.c_str(), &file) == 0) {
    // SQLite would take an empty file for a new database, and throw its log away.
    if (file.st_size == 0) return damaged(path, "the file is empty");
    return ok_status();
  }
  if (errno != ENOENT) return sys_error("cannot look at the ownership records " + path, errno);
  if (have_log) return damaged(path, "the file is gone, but its log " + path + "-wal is there");
  return create_file(path);
}

Status check_contents(Database& database) {
  const std::string& path = database.path();
  auto application = database.number("PRAGMA application_id");
  if (!application) return std::move(application).error();
  auto version = database.number("PRAGMA user_version");
  if (!version) return std::move(version).error();
  if (*application != kApplicationId) return damaged(path, "the file is a database, but not of Ferry");
  if (*version > kSchemaVersion)
    return make_error(Errc::unsupported,
                      "the ownership records in " + path + " were written by a newer Ferry (schema " +
                          std::to_string(*version) + ", known here: " + std::to_string(kSchemaVersion) + ')',
                      0, "install that version again; the records must not be thrown away");
  if (*version < 1) return damaged(path, "schema " + std::to_string(*version) + " was never written");
  auto check = database.prepare("PRAGMA integrity_check(1)");
  if (!check) return std::move(check).error();
  auto row = check->step();
  if (!row) return std::move(row).error();
  if (const auto words = check->text_at(0); words != "ok") return damaged(path, words);
  return ok_status();
}

// All of it or nothing: a crash in between leaves the old schema.
Status upgrade(Database& database) {
  auto version = database.number("PRAGMA user_version");
  if (!version) return std::move(version).error();
  if (*version == kSchemaVersion) return ok_status();
  auto transaction = Transaction::begin(database);
  if (!transaction) return std::move(transaction).error();
  // Another process may have been faster.
  version = database.number("PRAGMA user_version");
  if (!version) return std::move(version).error();
  if (*version == 1)
    FERRY_TRY(database.run(std::string(kFromSchema1) + "PRAGMA user_version = " + std::to_string(kSchemaVersion)));
  return transaction->commit();
}

// EXTRA flushes at each commit, so a put that returned is on the disk, in every journal mode: with less, the log
// would wait for its checkpoint, or a rollback journal might come back after a power cut.
Status set_up(Database& database) {
  return database.run("PRAGMA synchronous = EXTRA; PRAGMA foreign_keys = ON");
}

Result<DiskRecord> read_disk(const Statement& row, const std::string& path) {
  DiskRecord disk;
  disk.uuid = row.text_at(0);
  disk.generation = static_cast<std::uint64_t>(row.number_at(1));
  const auto holding = holding_from_name(row.text_at(2));
  if (!holding) return damaged(path, "the disk " + disk.uuid + " is held as \"" + row.text_at(2) + '"');
  disk.holding = *holding;
  disk.session = row.text_at(3);
  disk.target = row.text_at(4);
  disk.path = row.text_at(5);
  disk.volume_id = row.text_at(6);
  disk.role = row.text_at(7);
  disk.size_bytes = static_cast<std::uint64_t>(row.number_at(8));
  disk.created = row.number_at(9) != 0;
  disk.verified = row.number_at(10) != 0;
  disk.reason = row.text_at(11);
  disk.changed_at = row.number_at(12);
  disk.digest = row.text_at(13);
  disk.tracker = row.text_at(14);
  disk.expires_at = row.number_at(15);
  return disk;
}

Status check_request(const SessionRecord& session, const std::vector<DiskRecord>& disks) {
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::set<std::string> uuids, paths;
  if (session.id.empty()) return make_error(Errc::usage, "a session without an id cannot be recorded");
  for (const auto& disk : disks) {
    const std::string who = "the record of disk " + disk.uuid + " (" + disk.path + ')';
    if (disk.uuid.empty() || disk.path.empty()) return make_error(Errc::usage, who + " has no uuid or no path");
    if (disk.session != session.id)
      return make_error(Errc::usage, who + " belongs to session " + disk.session + ", not to " + session.id);
    if (disk.generation > kMax || disk.size_bytes > kMax)
      return make_error(Errc::usage, who + " has a number that is too large");
    if (!uuids.insert(disk.uuid).second || !paths.insert(disk.path).second)
      return make_error(Errc::usage, who + " names a uuid or a path twice");
  }
  return ok_status();
}

Status execute(Result<Statement> statement, const auto& bind) {
  if (!statement) return std::move(statement).error();
  bind(*statement);
  auto row = statement->step();
  if (!row) return std::move(row).error();
  return ok_status();
}

Status put_session(Database& database, const SessionRecord& session) {
  // No REPLACE: it would delete the row first, and disks refer to it.
  return execute(database.prepare("INSERT INTO session (id, vm, peer, peer_host, outgoing, domain_xml, errand) "
                                  "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO UPDATE SET vm = ?2, "
                                  "peer = ?3, peer_host = ?4, outgoing = ?5, domain_xml = ?6, errand = ?7"),
                 [&](Statement& s) {
                   s.text(1, session.id).text(2, session.vm).text(3, session.peer).text(4, session.peer_host);
                   s.number(5, session.outgoing).text(6, session.domain_xml).text(7, session.errand);
                 });
}

Status refuse_older(Database& database, const DiskRecord& disk) {
  auto stored = database.prepare("SELECT generation, holding FROM disk WHERE uuid = ?1");
  if (!stored) return std::move(stored).error();
  auto row = stored->text(1, disk.uuid).step();
  if (!row) return std::move(row).error();
  if (!*row || static_cast<std::uint64_t>(stored->number_at(0)) <= disk.generation) return ok_status();
  return make_error(Errc::busy,
                    disk.path + " is recorded as " + stored->text_at(1) + " of generation " +
                        std::to_string(stored->number_at(0)) + "; generation " + std::to_string(disk.generation) +
                        " came too late to change that",
                    0, "the other host's knowledge is older than this one's; compare both with: migrate-ctl own");
}

// Deletes the disks of that uuid or path and adds their sessions to `left`.
Status remove_disk(Database& database, const std::string& uuid, const std::string& path,
                   std::set<std::string>& left) {
  auto removed = database.prepare("DELETE FROM disk WHERE uuid = ?1 OR path = ?2 RETURNING session");
  if (!removed) return std::move(removed).error();
  removed->text(1, uuid).text(2, path);
  while (true) {
    auto row = removed->step();
    if (!row) return std::move(row).error();
    if (!*row) return ok_status();
    left.insert(removed->text_at(0));
  }
}

Status add_disk(Database& database, const DiskRecord& disk, std::int64_t now) {
  return execute(
      database.prepare("INSERT INTO disk (uuid, generation, holding, session, target, path, volume_id, role, "
                       "size_bytes, created, verified, reason, changed_at, digest, tracker, "
                       "expires_at) "
                       "VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)"),
      [&](Statement& s) {
        s.text(1, disk.uuid).number(2, static_cast<std::int64_t>(disk.generation));
        s.text(3, std::string(holding_name(disk.holding))).text(4, disk.session).text(5, disk.target);
        s.text(6, disk.path).text(7, disk.volume_id).text(8, disk.role);
        s.number(9, static_cast<std::int64_t>(disk.size_bytes)).number(10, disk.created);
        s.number(11, disk.verified).text(12, disk.reason).number(13, now);
        s.text(14, disk.digest).text(15, disk.tracker).number(16, disk.expires_at);
      });
}

// Only those that just lost a disk: another may have been put before its disks.
Status drop_unreferenced(Database& database, const std::set<std::string>& sessions) {
  for (const auto& id : sessions)
    FERRY_TRY(execute(database.prepare("DELETE FROM session WHERE id = ?1 AND id NOT IN (SELECT session FROM disk)"),
                      [&](Statement& s) { s.text(1, id); }));
  return ok_status();
}

}  // namespace

struct OwnershipStore::State {
  explicit State(Database opened) : database(std::move(opened)) {}
  mutable std::mutex mutex;
  mutable Database database;

  // `where`: the rest of the statement with at most one parameter, ?1.
  Result<std::vector<DiskRecord>> select(const std::string& where, const std::string& parameter) const;
  Result<std::optional<DiskRecord>> select_one(const std::string& where, const std::string& parameter) const;
};

Result<std::vector<DiskRecord>> OwnershipStore::State::select(const std::string& where,
                                                              const std::string& parameter) const {
  std::lock_guard lock(mutex);
  auto rows = database.prepare(kDiskColumns + where);
  if (!rows) return std::move(rows).error();
  if (where.find("?1") != std::string::npos) rows->text(1, parameter);
  std::vector<DiskRecord> disks;
  while (true) {
    auto more = rows->step();
    if (!more) return std::move(more).error();
    if (!*more) return disks;
    auto disk = read_disk(*rows, database.path());
    if (!disk) return std::move(disk).error();
    disks.push_back(std::move(*disk));
  }
}

Result<std::optional<DiskRecord>> OwnershipStore::State::select_one(const std::string& where,
                                                                    const std::string& parameter) const {
  auto disks = select(where, parameter);
  if (!disks) return std::move(disks).error();
  if (disks->empty()) return std::optional<DiskRecord>();
  return std::optional<DiskRecord>(std::move(disks->front()));
}

OwnershipStore::OwnershipStore(std::unique_ptr<State> state) : state_(std::move(state)) {}
OwnershipStore::OwnershipStore(OwnershipStore&&) noexcept = default;
OwnershipStore& OwnershipStore::operator=(OwnershipStore&&) noexcept = default;
OwnershipStore::~OwnershipStore() = default;

Result<OwnershipStore> OwnershipStore::open(const std::string& path) {
  FERRY_TRY(ensure_file(path));
  auto database = Database::open(path, SQLITE_OPEN_READWRITE);
  if (!database) return std::move(database).error();
  FERRY_TRY(check_contents(*database));
  FERRY_TRY(set_up(*database));
  FERRY_TRY(upgrade(*database));
  return OwnershipStore(std::make_unique<State>(std::move(*database)));
}

Status OwnershipStore::put(const SessionRecord& session, const std::vector<DiskRecord>& disks) {
  FERRY_TRY(check_request(session, disks));
  std::lock_guard lock(state_->mutex);
  Database& database = state_->database;
  auto transaction = Transaction::begin(database);
  if (!transaction) return std::move(transaction).error();
  FERRY_TRY(put_session(database, session));
  const std::int64_t now = unix_now();
  std::set<std::string> left;
  for (const auto& disk : disks) {
    FERRY_TRY(refuse_older(database, disk));
    FERRY_TRY(remove_disk(database, disk.uuid, disk.path, left));
    FERRY_TRY(add_disk(database, disk, now));
  }
  FERRY_TRY(drop_unreferenced(database, left));
  return transaction->commit();
}

Status OwnershipStore::set_errand(const std::string& job, const std::string& errand) {
  std::lock_guard lock(state_->mutex);
  return execute(state_->database.prepare("UPDATE session SET errand = ?2 WHERE id = ?1 OR id GLOB ?1 || '-[0-9]*'"),
                 [&](Statement& s) { s.text(1, job).text(2, errand); });
}

Status OwnershipStore::forget(const std::vector<std::string>& uuids) {
  std::lock_guard lock(state_->mutex);
  Database& database = state_->database;
  auto transaction = Transaction::begin(database);
  if (!transaction) return std::move(transaction).error();
  std::set<std::string> left;
  for (const auto& uuid : uuids) FERRY_TRY(remove_disk(database, uuid, "", left));
  FERRY_TRY(drop_unreferenced(database, left));
  return transaction->commit();
}

Result<std::vector<DiskRecord>> OwnershipStore::disks() const {
  return state_->select("ORDER BY session, target", "");
}

Result<std::vector<DiskRecord>> OwnershipStore::of_session(const std::string& session_id) const {
  return state_->select("WHERE session = ?1 ORDER BY target", session_id);
}

Result<std::optional<DiskRecord>> OwnershipStore::by_uuid(const std::string& uuid) const {
  return state_->select_one("WHERE uuid = ?1", uuid);
}

Result<std::optional<DiskRecord>> OwnershipStore::by_path(const std::string& path) const {
  return state_->select_one("WHERE path = ?1", path);
}

Result<std::optional<SessionRecord>> OwnershipStore::session(const std::string& session_id) const {
  std::lock_guard lock(state_->mutex);
  auto row = state_->database.prepare(
      "SELECT id, vm, peer, peer_host, outgoing, domain_xml, errand FROM session WHERE id = ?1");
  if (!row) return std::move(row).error();
  auto found = row->text(1, session_id).step();
  if (!found) return std::move(found).error();
  if (!*found) return std::optional<SessionRecord>();
  return std::optional<SessionRecord>(SessionRecord{row->text_at(0), row->text_at(1), row->text_at(2), row->text_at(3),
                                                    row->number_at(4) != 0, row->text_at(5), row->text_at(6)});
}

}  // namespace ferry::store
