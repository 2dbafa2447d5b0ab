// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "verb.h"

namespace ferry::ctl {
namespace {

std::string option_words(const Verb& verb) {
  po::options_description options;
  if (verb.add_options != nullptr) verb.add_options(options);
  add_common_options(options);
  std::string words;
  for (const auto& option : options.options())
    words += (words.empty() ? "--" : " --") + option->long_name();
  return words;
}

// What the shell should offer for the verb's first operand.
std::string_view operand_kind(const Verb& verb) {
  if (verb.name == "migrate") return "vm";
  if (verb.name == "own" || verb.name == "release") return "vm volume";
  if (verb.operands.find("job") != std::string_view::npos) return "job";
  if (verb.operands.find("volume") != std::string_view::npos) return "volume";
  if (verb.name == "help") return "verb";
  if (verb.name == "completion") return "shell";
  return "";
}

constexpr std::string_view kScriptEnd = R"SH(
_migrate_ctl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb= operands=0 i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --socket | --role | --max-downtime | --bandwidth | --streams | --timeout | --peer)
                ((i++))
                ;;
            -*) ;;
            *) if [[ -z $verb ]]; then verb=${COMP_WORDS[i]}; else ((operands++)); fi ;;
        esac
    done
    case $prev in
        --socket)
            COMPREPLY=($(compgen -f -- "$cur"))
            return
            ;;
        --peer)
            COMPREPLY=($(compgen -A hostname -- "$cur"))
            return
            ;;
        --role | --max-downtime | --bandwidth | --streams | --timeout) return ;;
    esac
    if [[ -z $verb ]]; then
        COMPREPLY=($(compgen -W "$_migrate_ctl_verbs --version --help" -- "$cur"))
        return
    fi
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "${_migrate_ctl_options[$verb]}" -- "$cur"))
        return
    fi
    if [[ $verb == migrate && $operands == 1 ]]; then
        COMPREPLY=($(compgen -A hostname -- "$cur"))
        return
    fi
    [[ $operands == 0 ]] || return
    local kind words=
    for kind in ${_migrate_ctl_operands[$verb]}; do
        case $kind in
            vm) words+=" $(virsh -q list --name 2>/dev/null)" ;;
            job) words+=" $(migrate-ctl jobs --quiet 2>/dev/null)" ;;
            volume) words+=" $(compgen -f -- "$cur")" ;;
            verb) words+=" $_migrate_ctl_verbs" ;;
            shell) words+=" bash" ;;
        esac
    done
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _migrate_ctl migrate-ctl
)SH";

}  // namespace

std::string bash_completion() {
  std::string names;
  std::string options;
  std::string operands;
  for (const auto& verb : verbs()) {
    names += (names.empty() ? "" : " ") + std::string(verb.name);
    options += fmt::format("    [{}]=\"{}\"\n", verb.name, option_words(verb));
    operands += fmt::format("    [{}]=\"{}\"\n", verb.name, operand_kind(verb));
  }
  return fmt::format(
      "# bash completion for migrate-ctl, written by: migrate-ctl completion bash\n"
      "_migrate_ctl_verbs=\"{}\"\n"
      "declare -gA _migrate_ctl_options=(\n{})\n"
      "declare -gA _migrate_ctl_operands=(\n{}){}",
      names, options, operands, kScriptEnd);
}

int run_completion(const Invocation& call) {
  if (call.operand(0) != "bash")
    return print_error(call.console,
                       make_error(Errc::usage,
                                  fmt::format("no completion for \"{}\"", call.operand(0)), 0,
                                  "bash is the shell we have one for"));
  std::string text = bash_completion();
  text.pop_back();  // print_out() ends the line
  print_out(text);
  return 0;
}

}  // namespace ferry::ctl
