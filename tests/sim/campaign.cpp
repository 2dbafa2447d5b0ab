// SPDX-License-Identifier: GPL-2.0-or-later
#include "campaign.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <iostream>
#include <mutex>
#include <thread>

#include "exploration.h"

namespace ferry::sim {
namespace {

struct Arguments {
  std::uint64_t seed = 0, first = 1, seeds = 0;
  bool trace = false, mutations = false, explore = false, longer = false;
  std::string json;
  Mutation mutation = Mutation::none;
};

constexpr const char* kUsage =
    "usage: ferry-sim --seed N [--trace] [--mutation NUMBER]   one world, again\n"
    "       ferry-sim --seeds N [--first M] [--mutations] [--explore | --explore-more] [--json PATH]\n"
    "Exit status: 0 all promises hold and every mutation was caught, 1 not so, 2 usage.\n";

bool parse(int argc, char** argv, Arguments& out) {
  for (int n = 1; n < argc; ++n) {
    const std::string word = argv[n];
    if (word == "--trace") {
      out.trace = true;
    } else if (word == "--mutations") {
      out.mutations = true;
    } else if (word == "--explore" || word == "--explore-more") {
      out.explore = true;
      out.longer = word == "--explore-more";
    } else if (n + 1 == argc) {
      return false;
    } else if (word == "--json") {
      out.json = argv[++n];
    } else {
      char* end = nullptr;
      const std::uint64_t value = std::strtoull(argv[++n], &end, 10);
      if (*end != '\0') return false;
      if (word == "--seed") out.seed = value;
      else if (word == "--seeds") out.seeds = value;
      else if (word == "--first") out.first = value;
      else if (word == "--mutation" && value < static_cast<std::uint64_t>(Mutation::count))
        out.mutation = static_cast<Mutation>(value);
      else return false;
    }
  }
  return out.seed != 0 || out.seeds != 0;
}

int one_seed(const Arguments& arguments) {
  World world({arguments.seed, arguments.mutation, arguments.trace ? &std::cout : nullptr});
  const Outcome outcome = world.run();
  std::cout << "seed " << arguments.seed << ": "
            << (outcome.violation.empty() ? "all promises hold" : outcome.violation) << " (" << outcome.steps
            << " steps)\n";
  return outcome.violation.empty() ? 0 : 1;
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + '"';
}

}  // namespace

Tally run_seeds(std::uint64_t first, std::uint64_t count, Mutation mutation) {
  constexpr std::uint64_t kBatch = 256;
  Tally sum;
  std::mutex mutex;
  std::atomic<std::uint64_t> next{0};
  const auto work = [&] {
    Tally mine;
    for (std::uint64_t from; (from = next.fetch_add(kBatch)) < count;) {
      for (std::uint64_t n = from; n < std::min(count, from + kBatch); ++n) {
        const Outcome outcome = World({first + n, mutation, nullptr}).run();
        ++mine.seeds;
        mine.steps += outcome.steps;
        if (!outcome.violation.empty()) mine.violations.push_back({first + n, outcome.violation});
        for (std::size_t bit = 0; bit < mine.seen.size(); ++bit) mine.seen[bit] += outcome.seen >> bit & 1;
      }
    }
    std::lock_guard lock(mutex);
    sum.seeds += mine.seeds;
    sum.steps += mine.steps;
    sum.violations.insert(sum.violations.end(), mine.violations.begin(), mine.violations.end());
    for (std::size_t bit = 0; bit < mine.seen.size(); ++bit) sum.seen[bit] += mine.seen[bit];
  };
  std::vector<std::thread> threads;
  for (unsigned n = 1; n < std::max(1u, std::thread::hardware_concurrency()); ++n) threads.emplace_back(work);
  work();
  for (auto& thread : threads) thread.join();
  std::sort(sum.violations.begin(), sum.violations.end(),
            [](const Violation& a, const Violation& b) { return a.seed < b.seed; });
  return sum;
}

bool is_unsafe(const std::string& violation) {
  for (const char* what : {"two writers", "lost write", "the old volumes", "stuck: the guest", "false alarm"})
    if (violation.starts_with(what)) return true;
  return false;
}

std::optional<Caught> catch_mutation(Mutation mutation, std::uint64_t limit) {
  for (std::uint64_t seed = 1; seed <= limit; ++seed) {
    const Outcome outcome = World({seed, mutation, nullptr}).run();
    if (is_unsafe(outcome.violation)) return Caught{seed, outcome.violation};
  }
  return std::nullopt;
}

std::vector<Explored> explore_ownership(bool longer) {
  struct Bounded {
    const char* name;
    OwnershipBounds bounds;
    bool only_longer;
  };
  constexpr Bounded kBounds[] = {
      {"2 crashes of each daemon, 2 broken links", {2, 0, 2, 0, 0}, false},
      {"2 crashes of each daemon, a broken link, a failing record", {2, 0, 1, 1, 0}, false},
      {"a crash of each daemon, a loss of power, a broken link, a failing record, libvirt's own mind",
       {1, 1, 1, 1, 1},
       false},
      {"2 crashes of each daemon, a loss of power, 2 broken links", {2, 1, 2, 0, 0}, true},
  };
  constexpr std::uint64_t kMaxStates = 30'000'000;
  std::vector<Explored> rows;
  for (const auto& row : kBounds) {
    if (row.only_longer && !longer) continue;
    OwnershipModel model(row.bounds, Mutation::none);
    const Exploration result = explore(model, kMaxStates);
    rows.push_back({row.name, result.states, result.steps,
                    !result.broken.empty() ? result.broken : result.complete ? "" : "not explored to the end"});
    std::cout << fmt::format("  explored {:>9} states, {:>10} steps: {}: {}\n", result.states, result.steps, row.name,
                             rows.back().broken.empty() ? "holds" : rows.back().broken);
    if (!result.broken.empty()) print(std::cout, result.trace);
  }
  return rows;
}

namespace {

void show(const Tally& tally, double seconds) {
  std::cout << fmt::format("{} seeds, {} steps, {:.1f} s, {} violations\n", tally.seeds, tally.steps, seconds,
                           tally.violations.size());
  for (std::size_t n = 0; n < tally.violations.size() && n < 20; ++n)
    std::cout << fmt::format("  seed {}: {}\n", tally.violations[n].seed, tally.violations[n].what);
  std::cout << "  worlds that came by:\n";
  for (std::size_t bit = 0; bit < tally.seen.size(); ++bit)
    std::cout << fmt::format("    {:28} {:>8}\n", seen_name(static_cast<Seen>(bit)), tally.seen[bit]);
}

// One JSON object a mutation; `good` becomes false when one was not caught.
std::string all_mutations(bool& good) {
  std::string rows;
  for (unsigned n = 1; n < static_cast<unsigned>(Mutation::count); ++n) {
    const auto mutation = static_cast<Mutation>(n);
    const auto caught = catch_mutation(mutation, kMutationSeeds);
    good = good && caught;
    std::cout << fmt::format("  mutation {:2} {:46} {}\n", n, mutation_name(mutation),
                             caught ? fmt::format("seed {}: {}", caught->seed, caught->what) : "NOT CAUGHT");
    rows += fmt::format("{}\n    {{\"name\": {}, \"caught\": {}, \"seed\": {}, \"what\": {}}}", rows.empty() ? "" : ",",
                        quoted(mutation_name(mutation)), caught ? "true" : "false", caught ? caught->seed : 0,
                        quoted(caught ? caught->what : ""));
  }
  return rows;
}

std::string explorations(bool longer, bool& good) {
  std::string rows;
  for (const auto& row : explore_ownership(longer)) {
    good = good && row.broken.empty();
    rows += fmt::format("{}\n    {{\"name\": {}, \"states\": {}, \"steps\": {}, \"broken\": {}}}",
                        rows.empty() ? "" : ",", quoted(row.name), row.states, row.steps, quoted(row.broken));
  }
  return rows;
}

}  // namespace

int campaign(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::cerr << kUsage;
    return 2;
  }
  if (arguments.seed != 0) return one_seed(arguments);
  const auto began = std::chrono::steady_clock::now();
  const Tally tally = run_seeds(arguments.first, arguments.seeds, arguments.mutation);
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  show(tally, took);
  bool good = tally.violations.empty();
  const std::string mutations = arguments.mutations ? all_mutations(good) : "";
  const std::string explored = arguments.explore ? explorations(arguments.longer, good) : "";
  if (arguments.json.empty()) return good ? 0 : 1;
  std::string violated;
  for (std::size_t n = 0; n < tally.violations.size() && n < 100; ++n)
    violated += fmt::format("{}\n    {{\"seed\": {}, \"what\": {}}}", n ? "," : "", tally.violations[n].seed,
                            quoted(tally.violations[n].what));
  std::ofstream json(arguments.json);
  json << fmt::format(
      "{{\n  \"seeds\": {},\n  \"first\": {},\n  \"violations\": {},\n  \"violated\": [{}\n  ],\n"
      "  \"steps\": {},\n  \"seconds\": {:.1f},\n  \"mutations\": [{}\n  ],\n  \"explorations\": [{}\n  ]\n}}\n",
      tally.seeds, arguments.first, tally.violations.size(), violated, tally.steps, took, mutations, explored);
  if (!json.flush()) {
    std::cerr << "cannot write " << arguments.json << '\n';
    return 1;
  }
  return good ? 0 : 1;
}

}  // namespace ferry::sim
