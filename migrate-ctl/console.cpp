// SPDX-License-Identifier: GPL-2.0-or-later
#include "console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "units.h"

namespace ferry::ctl {
namespace {

bool wants_color(int fd, bool no_color) {
  const char* off = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return !no_color && (off == nullptr || *off == '\0') && ::isatty(fd) == 1 &&
         (term == nullptr || std::strcmp(term, "dumb") != 0);
}

std::string_view code_of(Tint tint) {
  switch (tint) {
    case Tint::good:
      return "\033[32m";
    case Tint::bad:
      return "\033[31m";
    case Tint::warn:
      return "\033[33m";
    case Tint::dim:
      return "\033[2m";
    case Tint::bold:
      return "\033[1m";
    case Tint::none:
      break;
  }
  return "";
}

void write_line(std::FILE* file, std::string_view line) {
  std::fwrite(line.data(), 1, line.size(), file);
  std::fputc('\n', file);
}

}  // namespace

Console make_console(bool json, bool quiet, bool no_color) {
  return {json, quiet, wants_color(STDOUT_FILENO, no_color), wants_color(STDERR_FILENO, no_color)};
}

std::string tinted(bool color, Tint tint, std::string_view text) {
  if (!color || tint == Tint::none) return std::string(text);
  return fmt::format("{}{}\033[0m", code_of(tint), text);
}

void print_json(const api::Json& json) { write_line(stdout, api::write_json(json)); }
void print_out(std::string_view line) { write_line(stdout, line); }
void print_err(std::string_view line) { write_line(stderr, line); }

int print_error(const Console& console, const Error& error) {
  Error plain = error;
  plain.hint.clear();
  print_err(fmt::format("{} {}", tinted(console.color_err, Tint::bad, "migrate-ctl:"),
                        printable(plain.message())));
  if (!error.hint.empty()) print_err(fmt::format("  hint: {}", printable(error.hint)));
  return exit_code(error.code);
}

void Table::print(const Console& console, std::string_view indent) const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (size_t n = 0; n < rows_.size(); ++n) {
    std::string line;
    for (size_t i = 0; i < rows_[n].size(); ++i) {
      const bool last = i + 1 == rows_[n].size();
      const std::string cell = printable(rows_[n][i]);
      line += last ? cell : fmt::format("{:<{}}  ", cell, widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    print_out(fmt::format("{}{}", indent,
                          n == 0 ? tinted(console.color_out, Tint::bold, line) : line));
  }
}

void print_checks(const Console& console, const std::vector<api::Check>& checks) {
  for (const auto& check : checks) {
    const auto word = check.ok ? tinted(console.color_out, Tint::good, "ok  ")
                               : tinted(console.color_out, Tint::bad, "FAIL");
    print_out(fmt::format("  {}  {}{}{}", word, printable(check.name),
                          check.detail.empty() ? "" : ": ", printable(check.detail)));
    if (!check.ok && !check.hint.empty())
      print_out(fmt::format("        {}", printable(check.hint)));
  }
}

}  // namespace ferry::ctl
