// SPDX-License-Identifier: GPL-2.0-or-later
// Verb table, man page and completion must tell the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "verb.h"

namespace ferry::ctl {
namespace {

std::set<std::string> long_options(const Verb& verb) {
  po::options_description options;
  if (verb.add_options != nullptr) verb.add_options(options);
  std::set<std::string> names;
  for (const auto& option : options.options()) names.insert(option->long_name());
  return names;
}

// Section title → its text, for the sections below "# VERBS"; "" holds everything.
std::map<std::string, std::string> man_sections() {
  std::ifstream in(MIGRATE_CTL_MAN);
  EXPECT_TRUE(in.good()) << MIGRATE_CTL_MAN;
  std::map<std::string, std::string> sections;
  std::string title;
  bool in_verbs = false;
  for (std::string line; std::getline(in, line);) {
    sections[""] += line + "\n";
    if (line.starts_with("# ")) {
      in_verbs = line == "# VERBS";
      title.clear();
    } else if (in_verbs && line.starts_with("## ")) {
      title = line.substr(3);
      sections[title];
    } else if (!title.empty()) {
      sections[title] += line + "\n";
    }
  }
  return sections;
}

TEST(ManPage, HasEachVerbAndNoOther) {
  auto sections = man_sections();
  sections.erase("");
  std::set<std::string> in_page;
  for (const auto& [title, text] : sections) in_page.insert(title);
  std::set<std::string> in_table;
  for (const auto& verb : verbs()) in_table.insert(std::string(verb.name));
  EXPECT_EQ(in_page, in_table);
}

TEST(ManPage, HasEachOptionOfEachVerbAndNoOther) {
  const auto sections = man_sections();
  // Options that a section explains stand at the beginning of a line.
  const std::regex explained(R"((?:^|\n)(?:\*-\w\*, )?\*--([a-z-]+)\*)");
  for (const auto& verb : verbs()) {
    const std::string& text = sections.at(std::string(verb.name));
    std::set<std::string> in_page;
    for (std::sregex_iterator it(text.begin(), text.end(), explained), end; it != end; ++it)
      in_page.insert((*it)[1]);
    EXPECT_EQ(in_page, long_options(verb)) << verb.name;
  }
}

TEST(ManPage, HasTheCommonOptionsAndEachExitCode) {
  const std::string all = man_sections().at("");
  po::options_description common;
  add_common_options(common);
  for (const auto& option : common.options())
    EXPECT_THAT(all, testing::HasSubstr("*--" + option->long_name() + "*"));
  for (const char* code : {"0", "1", "2", "3", "4", "5", "6", "7", "8"})
    EXPECT_THAT(all, testing::HasSubstr(std::string("\n*") + code + "*\n")) << code;
}

TEST(Completion, NamesEachVerbAndOption) {
  const std::string script = bash_completion();
  for (const auto& verb : verbs()) {
    std::smatch found;
    const std::regex row("\\[" + std::string(verb.name) + "\\]=\"([^\"]*)\"");
    ASSERT_TRUE(std::regex_search(script, found, row)) << verb.name;
    std::istringstream words(found[1]);
    const std::set<std::string> offered{std::istream_iterator<std::string>(words), {}};
    for (const auto& option : long_options(verb))
      EXPECT_TRUE(offered.contains("--" + option)) << verb.name << " " << option;
    EXPECT_TRUE(offered.contains("--json"));
  }
}

TEST(Verbs, OperandsAreCounted) {
  EXPECT_EQ(find_verb("migrate")->operands_min(), 2u);
  EXPECT_EQ(find_verb("status")->operands_min(), 0u);
  EXPECT_EQ(find_verb("status")->operands_max(), 1u);
  EXPECT_EQ(find_verb("release")->operands_min(), 1u);
  EXPECT_EQ(find_verb("nothing"), nullptr);
}

}  // namespace
}  // namespace ferry::ctl
