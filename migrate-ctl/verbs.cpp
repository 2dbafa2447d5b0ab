// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <array>

#include "verb.h"

namespace ferry::ctl {
namespace {

constexpr std::array kVerbs{
    Verb{"migrate", "<vm> <host>", "move a running VM with its disks to another host",
         add_migrate_options, run_migrate},
    Verb{"status", "[job|vm]", "show a job, or what is going on", add_status_options, run_status},
    Verb{"jobs", "", "list all jobs that ferryd remembers", nullptr, run_jobs},
    Verb{"abort", "<job|vm>", "stop a migration; the VM stays where it is", add_abort_options,
         run_abort},
    Verb{"pause", "<job|vm>", "let a migration stand still; what was copied is kept", nullptr,
         run_pause},
    Verb{"resume", "<job|vm>", "go on with a migration that is paused or waits", nullptr,
         run_resume},
    Verb{"volumes", "", "list the volumes that hold the filter", nullptr, run_volumes},
    Verb{"attach", "<volume>", "put the filter into a live volume", nullptr, run_attach},
    Verb{"detach", "<volume>", "take the filter out of a live volume", nullptr, run_detach},
    Verb{"own", "[vm|volume]", "show who owns which disk, or take disks by force", add_own_options,
         run_own},
    Verb{"release", "<vm|volume>", "free the volumes that a VM left behind here",
         add_release_options, run_release},
    Verb{"doctor", "", "check that this host, and a peer, can migrate", add_doctor_options,
         run_doctor},
    Verb{"version", "", "show the versions of client, daemon and module", nullptr, run_version},
    Verb{"help", "[verb]", "explain a verb", nullptr, run_help},
    Verb{"completion", "<shell>", "write the completion script for bash", nullptr,
         run_completion},
};

}  // namespace

std::span<const Verb> verbs() { return kVerbs; }

const Verb* find_verb(std::string_view name) {
  const auto found = std::find_if(kVerbs.begin(), kVerbs.end(),
                                  [&](const Verb& verb) { return verb.name == name; });
  return found == kVerbs.end() ? nullptr : &*found;
}

size_t Verb::operands_min() const {
  return static_cast<size_t>(std::count(operands.begin(), operands.end(), '<'));
}

size_t Verb::operands_max() const {
  return operands_min() + static_cast<size_t>(std::count(operands.begin(), operands.end(), '['));
}

}  // namespace ferry::ctl
