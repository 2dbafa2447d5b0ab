// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include <sstream>

#include "verb.h"

namespace ferry::ctl {

void print_help() {
  print_out("migrate-ctl moves running virtual machines with their disks to another host.\n");
  print_out("usage: migrate-ctl VERB [operands] [options]\n");
  for (const auto& verb : verbs())
    print_out(fmt::format("  {:<26} {}", fmt::format("{} {}", verb.name, verb.operands),
                          verb.summary));
  print_out("\nmigrate-ctl help VERB explains a verb; migrate-ctl(1) tells everything.");
}

void print_verb_help(const Verb& verb) {
  print_out(fmt::format("usage: migrate-ctl {}{}{} [options]\n\n{}.\n", verb.name,
                        verb.operands.empty() ? "" : " ", verb.operands, verb.summary));
  std::ostringstream text;
  if (verb.add_options != nullptr) {
    po::options_description own("Options");
    verb.add_options(own);
    text << own << '\n';
  }
  po::options_description common("Common options");
  add_common_options(common);
  text << common;
  print_out(text.str());
}

int run_help(const Invocation& call) {
  const std::string name = call.operand(0);
  if (name.empty()) {
    print_help();
    return 0;
  }
  if (const Verb* verb = find_verb(name)) {
    print_verb_help(*verb);
    return 0;
  }
  return print_error(call.console,
                     make_error(Errc::usage, fmt::format("there is no verb \"{}\"", name), 0,
                                "migrate-ctl help lists the verbs"));
}

}  // namespace ferry::ctl
