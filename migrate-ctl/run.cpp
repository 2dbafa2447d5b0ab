// SPDX-License-Identifier: GPL-2.0-or-later
// From argv to a verb's run function. Every slip ends with exit code 2 and one helpful line.
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/parsers.hpp>
#include <numeric>

#include "units.h"
#include "verb.h"

#ifndef FERRY_VERSION
#error "the build must define FERRY_VERSION"
#endif

namespace ferry::ctl {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

int usage_error(const std::string& what, const std::string& hint) {
  return print_error(make_console(false, false, false), make_error(Errc::usage, what, 0, hint));
}

int unknown_verb(const std::string& name) {
  const Verb* nearest = nullptr;
  size_t best = 3;  // further away is no slip of the finger
  for (const auto& verb : verbs()) {
    const size_t distance = edit_distance(name, verb.name);
    if (distance >= best) continue;
    best = distance;
    nearest = &verb;
  }
  return usage_error(fmt::format("there is no verb \"{}\"", name),
                     nearest != nullptr ? fmt::format("did you mean {}?", nearest->name)
                                        : "migrate-ctl help lists the verbs");
}

// Common options may stand before the verb: takes the verb out of the list.
std::string take_verb(std::vector<std::string>& args) {
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--socket") {
      ++i;
    } else if (args[i].empty() || args[i].front() != '-') {
      std::string verb = args[i];
      args.erase(args.begin() + static_cast<std::ptrdiff_t>(i));
      return verb;
    }
  }
  return "";
}

struct Parsed {
  po::variables_map options;
  std::vector<std::string> operands;
};

Parsed parse(const Verb& verb, const std::vector<std::string>& args) {
  po::options_description all;
  add_common_options(all);
  if (verb.add_options != nullptr) verb.add_options(all);
  all.add_options()("operand", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("operand", -1);
  // No guessing: an abbreviation that works today could be ambiguous in the next version.
  const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  Parsed parsed;
  po::store(po::command_line_parser(args).options(all).positional(positional).style(style).run(),
            parsed.options);
  po::notify(parsed.options);
  if (parsed.options.count("operand") != 0)
    parsed.operands = parsed.options["operand"].as<std::vector<std::string>>();
  return parsed;
}

int run_verb(const Verb& verb, const std::vector<std::string>& args) {
  const std::string hint = fmt::format("see: migrate-ctl help {}", verb.name);
  Parsed parsed;
  try {
    parsed = parse(verb, args);
  } catch (const po::error& e) {
    return usage_error(fmt::format("{}: {}", verb.name, e.what()), hint);
  }
  if (parsed.options.count("help") != 0) {
    print_verb_help(verb);
    return 0;
  }
  if (parsed.operands.size() < verb.operands_min())
    return usage_error(fmt::format("{} needs {}", verb.name, verb.operands), hint);
  if (parsed.operands.size() > verb.operands_max())
    return usage_error(fmt::format("{}: \"{}\" is too much", verb.name,
                                   parsed.operands[verb.operands_max()]),
                       hint);
  Invocation call;
  call.console = make_console(parsed.options.count("json") != 0,
                              parsed.options.count("quiet") != 0,
                              parsed.options.count("no-color") != 0);
  call.socket_path = parsed.options["socket"].as<std::string>();
  call.operands = std::move(parsed.operands);
  call.options = std::move(parsed.options);
  return verb.run(call);
}

}  // namespace

std::string_view client_version() { return FERRY_VERSION; }

void add_common_options(po::options_description& options) {
  options.add_options()
      ("json", "print the result as one JSON document")
      ("quiet,q", "print no progress and no summary")
      ("no-color", "no colours (so does the variable NO_COLOR)")
      ("socket", po::value<std::string>()->value_name("PATH")
                     ->default_value(api::kSocketPathDefault), "ferryd's admin socket")
      ("help,h", "explain the verb");
}

int run(int argc, const char* const* argv) {
  std::vector<std::string> args(argv + std::min(argc, 1), argv + argc);
  const std::string_view self = argc > 0 ? argv[0] : "";
  // Called through a link named "migrate" it is that verb.
  const bool alias = self.substr(self.find_last_of('/') + 1) == "migrate";
  const std::string name = alias ? "migrate" : take_verb(args);
  if (const Verb* verb = find_verb(name)) return run_verb(*verb, args);
  if (!name.empty()) return unknown_verb(name);
  for (const auto& arg : args) {
    if (arg == "--help" || arg == "-h") {
      print_help();
      return 0;
    }
    if (arg == "--version") {
      print_out(fmt::format("migrate-ctl {}", client_version()));
      return 0;
    }
  }
  if (!args.empty())
    return usage_error(fmt::format("no verb, and {} alone means nothing", args.front()),
                       "migrate-ctl help lists the verbs");
  print_help();
  return exit_code(Errc::usage);
}

}  // namespace ferry::ctl
