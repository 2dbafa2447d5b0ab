// SPDX-License-Identifier: GPL-2.0-or-later
// SQLite behind RAII and Results: a connection, a prepared statement, a transaction. Errors carry
// the file's name, SQLite's own words and what to do.
// Ownership: Statement and Transaction must not outlive their Database.
// Thread-safety: one thread at a time per Database and what belongs to it.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace ferry::store {

class Statement {
 public:
  // Parameters are numbered from 1, columns from 0, in SQL's own order.
  Statement& text(int parameter, const std::string& value);
  Statement& number(int parameter, std::int64_t value);
  // True when there is a row, false when the statement is done.
  Result<bool> step();
  std::string text_at(int column) const;
  std::int64_t number_at(int column) const;

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  Statement(sqlite3_stmt* statement, std::string path) : statement_(statement), path_(std::move(path)) {}

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  std::string path_;
  int bind_result_ = SQLITE_OK;  // of the first binding that failed; step() tells it
};

class Database {
 public:
  // `flags`: SQLITE_OPEN_*. A lock that another process holds is waited for up to 5 seconds.
  static Result<Database> open(const std::string& path, int flags);

  // Statements without parameters and without answers of interest.
  Status run(const std::string& sql);
  Result<Statement> prepare(const std::string& sql);
  // The one number that a pragma or count answers.
  Result<std::int64_t> number(const std::string& sql);
  const std::string& path() const { return path_; }

 private:
  friend class Transaction;
  struct Close {
    void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
  };
  Database(sqlite3* database, std::string path) : database_(database), path_(std::move(path)) {}

  std::unique_ptr<sqlite3, Close> database_;
  std::string path_;
};

// From begin() on this process is the only writer. Rolled back unless commit() succeeded.
class Transaction {
 public:
  static Result<Transaction> begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Status commit();

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Database* database_;
};

// What a result code of SQLite means to an admin. `words`: sqlite3_errmsg().
Error sqlite_error(const std::string& path, int code, const std::string& words);

}  // namespace ferry::store
