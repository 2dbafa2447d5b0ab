// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/sqlite.h"

#include <utility>

namespace ferry::store {
namespace {

// Other openers hold the lock for one short transaction; a disk that takes longer has a problem.
constexpr int kLockTimeoutMs = 5'000;

Error error_of(sqlite3* database, const std::string& path, int code) {
  return sqlite_error(path, code, database != nullptr ? sqlite3_errmsg(database) : sqlite3_errstr(code));
}

}  // namespace

Error sqlite_error(const std::string& path, int code, const std::string& words) {
  const std::string what = "the ownership records in " + path + ": " + words;
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return make_error(Errc::io, what, 0,
                        "the file is damaged. It is the memory of which disks this host may write to: start none of "
                        "its moved VMs before you know from the other hosts (migrate-ctl own) where they live, then "
                        "restore the file from a backup, or move it away and start ferryd again");
    case SQLITE_FULL:
      return make_error(Errc::no_space, what, 0, "make room on the file system that holds it");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return make_error(Errc::busy, what, 0, "another program holds the file locked; find it with: fuser " + path);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return make_error(Errc::permission, what, 0,
                        "it and its directory must be writable for root, on a file system that is mounted read-write");
    case SQLITE_IOERR:
      return make_error(Errc::io, what, 0, "look at the kernel's log for errors of the disk below");
    default:
      return make_error(Errc::failed, what);
  }
}

Statement& Statement::text(int parameter, const std::string& value) {
  const int code = sqlite3_bind_text64(statement_.get(), parameter, value.data(), value.size(), SQLITE_TRANSIENT,
                                       SQLITE_UTF8);
  if (bind_result_ == SQLITE_OK) bind_result_ = code;
  return *this;
}

Statement& Statement::number(int parameter, std::int64_t value) {
  const int code = sqlite3_bind_int64(statement_.get(), parameter, value);
  if (bind_result_ == SQLITE_OK) bind_result_ = code;
  return *this;
}

Result<bool> Statement::step() {
  if (bind_result_ != SQLITE_OK) return sqlite_error(path_, bind_result_, sqlite3_errstr(bind_result_));
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return error_of(sqlite3_db_handle(statement_.get()), path_, code);
}

std::string Statement::text_at(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  return text == nullptr ? std::string() : std::string(text, sqlite3_column_bytes(statement_.get(), column));
}

std::int64_t Statement::number_at(int column) const { return sqlite3_column_int64(statement_.get(), column); }

Result<Database> Database::open(const std::string& path, int flags) {
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(raw, path);  // SQLite wants even a failed handle closed
  if (code != SQLITE_OK) return error_of(raw, path, code);
  sqlite3_busy_timeout(raw, kLockTimeoutMs);
  return database;
}

Status Database::run(const std::string& sql) {
  const int code = sqlite3_exec(database_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return error_of(database_.get(), path_, code);
  return ok_status();
}

Result<Statement> Database::prepare(const std::string& sql) {
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v2(database_.get(), sql.c_str(), static_cast<int>(sql.size()), &raw, nullptr);
  if (code != SQLITE_OK) return error_of(database_.get(), path_, code);
  return Statement(raw, path_);
}

Result<std::int64_t> Database::number(const std::string& sql) {
  auto statement = prepare(sql);
  if (!statement) return std::move(statement).error();
  auto row = statement->step();
  if (!row) return std::move(row).error();
  return *row ? statement->number_at(0) : 0;
}

Result<Transaction> Transaction::begin(Database& database) {
  // IMMEDIATE: a reader that becomes a writer later could only fail when another was faster.
  FERRY_TRY(database.run("BEGIN IMMEDIATE"));
  return Transaction(database);
}

Transaction::~Transaction() {
  // Some errors have rolled it back already; then there is nothing to do.
  if (database_ != nullptr && sqlite3_get_autocommit(database_->database_.get()) == 0)
    (void)database_->run("ROLLBACK");
}

Status Transaction::commit() {
  FERRY_TRY(database_->run("COMMIT"));
  database_ = nullptr;
  return ok_status();
}

}  // namespace ferry::store
