// SPDX-License-Identifier: GPL-2.0-or-later
// The verbs of migrate-ctl as one table: help, parsing, completion and the tests read it.
// Ownership: the table is constant. Thread-safety: one thread.
#pragma once

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/variables_map.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "client.h"
#include "console.h"

namespace ferry::ctl {

namespace po = boost::program_options;

// What one command line asks for.
struct Invocation {
  Console console;
  std::string socket_path;
  po::variables_map options;            // of the verb
  std::vector<std::string> operands;    // as many as the verb takes

  bool has(const char* option) const { return options.count(option) != 0; }
  std::string operand(size_t n) const { return n < operands.size() ? operands[n] : ""; }
};

struct Verb {
  std::string_view name;
  std::string_view operands;            // "<vm> <host>"; [x] may be left out
  std::string_view summary;
  void (*add_options)(po::options_description& options);   // may be null
  int (*run)(const Invocation& call);

  size_t operands_min() const;
  size_t operands_max() const;
};

std::span<const Verb> verbs();
const Verb* find_verb(std::string_view name);
// Options that every verb takes.
void add_common_options(po::options_description& options);
void print_help();
void print_verb_help(const Verb& verb);
std::string bash_completion();
std::string_view client_version();

// A path is a volume, anything else the name of a VM.
api::OwnerTarget owner_target(const std::string& operand);

// The whole program: returns the exit code.
int run(int argc, const char* const* argv);

// Left the job running after a signal (128 + SIGINT): neither success nor failure is known.
inline constexpr int kExitDetached = 130;

int run_migrate(const Invocation& call);
int run_status(const Invocation& call);
int run_jobs(const Invocation& call);
int run_abort(const Invocation& call);
int run_pause(const Invocation& call);
int run_resume(const Invocation& call);
int run_volumes(const Invocation& call);
int run_attach(const Invocation& call);
int run_detach(const Invocation& call);
int run_own(const Invocation& call);
int run_release(const Invocation& call);
int run_doctor(const Invocation& call);
int run_version(const Invocation& call);
int run_help(const Invocation& call);
int run_completion(const Invocation& call);

void add_migrate_options(po::options_description& options);
void add_status_options(po::options_description& options);
void add_abort_options(po::options_description& options);
void add_own_options(po::options_description& options);
void add_release_options(po::options_description& options);
void add_doctor_options(po::options_description& options);

}  // namespace ferry::ctl
