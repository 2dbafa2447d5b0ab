// SPDX-License-Identifier: GPL-2.0-or-later
// Console: where and how to print. Results go to stdout, everything else to stderr.
// Thread-safety: one thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/api_types.h"
#include "base/result.h"

namespace ferry::ctl {

struct Console {
  bool json = false;
  bool quiet = false;
  bool color_out = false;
  bool color_err = false;
};

// Colours only on terminals, and not with --no-color, NO_COLOR or TERM=dumb.
Console make_console(bool json, bool quiet, bool no_color);

enum class Tint { none, good, bad, warn, dim, bold };
std::string tinted(bool color, Tint tint, std::string_view text);

// A JSON document or a line of text on stdout.
void print_json(const api::Json& json);
void print_out(std::string_view line);
void print_err(std::string_view line);
// "migrate-ctl: <what>" and, on a line of its own, the hint. Returns the exit code.
int print_error(const Console& console, const Error& error);

// Left-aligned columns, two spaces apart; the first row is the head.
class Table {
 public:
  explicit Table(std::vector<std::string> head) { rows_.push_back(std::move(head)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void print(const Console& console, std::string_view indent = "") const;
  bool empty() const { return rows_.size() == 1; }

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Lines "ok    name: detail", and what to do below those that are not.
void print_checks(const Console& console, const std::vector<api::Check>& checks);

}  // namespace ferry::ctl
