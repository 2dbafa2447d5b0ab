// SPDX-License-Identifier: GPL-2.0-or-later
#include "report.h"

#include <fmt/format.h>

#include <algorithm>

#include "progress.h"
#include "units.h"

namespace ferry::ctl {
namespace {

using api::JobState;
using api::JobStatus;
using api::Owner;

std::string maybe_duration(const std::optional<uint64_t>& ms) {
  return ms ? format_duration(*ms) : "-";
}

std::string digest_text(const api::DiskStatus& disk) {
  if (!disk.digest_equal) return "not compared";
  return *disk.digest_equal ? "digests equal" : "DIGESTS DIFFER";
}

void print_rounds(const Console& console, const JobStatus& job) {
  if (job.rounds.empty()) return;
  Table table({"round", "bytes", "time", "rate", "dirty after"});
  for (const auto& round : job.rounds)
    table.add({std::to_string(round.n), format_size(round.bytes), format_duration(round.ms),
               round.ms > 0 ? format_rate(round.bytes * 1000 / round.ms) : "-",
               round.dirty_bytes ? format_size(*round.dirty_bytes) : "-"});
  table.print(console, "  ");
}

void print_disks(const Console& console, const JobStatus& job) {
  if (job.disks.empty()) return;
  Table table({"disk", "role", "size", "sent", "of it zero", "dirty", "check", "path"});
  for (const auto& disk : job.disks)
    table.add({disk.name, std::string(api::name_of(disk.role)), format_size(disk.size_bytes),
               format_size(disk.bytes_sent), format_size(disk.zero_bytes),
               format_size(disk.dirty_bytes), digest_text(disk), disk.path});
  table.print(console, "  ");
}

void print_switchover(const JobStatus& job) {
  const auto& s = job.switchover;
  if (!s.paused_ms && !s.freeze_ms && !s.copy_ms) return;
  print_out(fmt::format("  downtime {} as the daemon sees it (memory {}, last round {}, "
                        "writes held {}, handover {})",
                        maybe_duration(s.paused_ms), maybe_duration(s.memory_ms),
                        maybe_duration(s.copy_ms), maybe_duration(s.freeze_ms),
                        maybe_duration(s.handover_ms)));
}

std::string headline(const JobStatus& job) {
  const std::string vm = printable(job.vm);
  const std::string there = printable(job.destination);
  if (job.owner == Owner::unknown)
    return fmt::format("who owns the disks of {} is UNKNOWN: do not start it on any host before "
                       "this is settled",
                       vm);
  if (job.owner == Owner::destination)
    return job.state == JobState::done && !job.error
               ? fmt::format("{} runs on {}", vm, there)
               : fmt::format("{} runs on {}, but not all is well", vm, there);
  if (!api::is_final(job.state)) return fmt::format("{} moves to {}", vm, there);
  return fmt::format("{} stays on its source host", vm);
}

}  // namespace

int exit_code_of(const JobStatus& job) {
  if (job.error) return exit_code(job.error->code);
  if (job.state == JobState::done) return 0;
  return exit_code(job.owner == Owner::unknown ? Errc::owner_unknown : Errc::failed);
}

int report_end(const Console& console, const JobStatus& job) {
  const int status = exit_code_of(job);
  if (console.json) {
    print_json(api::encode(job));
  } else if (!console.quiet && job.state == JobState::done) {
    print_out(fmt::format("{} (job {})",
                          tinted(console.color_out, status == 0 ? Tint::good : Tint::warn,
                                 headline(job)),
                          printable(job.id)));
    print_rounds(console, job);
    print_disks(console, job);
    if (job.total_ms) print_out(fmt::format("  total {}", format_duration(*job.total_ms)));
    print_switchover(job);
  }
  if (status == 0) return 0;
  Error error = job.error.value_or(
      make_error(Errc::failed, fmt::format("job {} has {}", job.id, api::name_of(job.state))));
  error.what = fmt::format("{}: {}", headline(job), error.what);
  print_error(console, error);
  return status;
}

void print_job(const Console& console, const JobStatus& job) {
  print_out(fmt::format("{} (job {})", tinted(console.color_out, Tint::bold, headline(job)),
                        printable(job.id)));
  print_out(fmt::format("  {}{}{}", phase_text(job), job.phase_detail.empty() ? "" : ": ",
                        printable(job.phase_detail)));
  if (!api::is_final(job.state)) print_out("  " + plain_line(job));
  if (job.started_at) print_out(fmt::format("  started {}", api::format_time(*job.started_at)));
  if (job.ended_at)
    print_out(fmt::format("  ended {}, total {}", api::format_time(*job.ended_at),
                          maybe_duration(job.total_ms)));
  print_rounds(console, job);
  print_disks(console, job);
  if (job.memory.total_bytes > 0)
    print_out(fmt::format("  memory {} sent, {} left", format_size(job.memory.processed_bytes),
                          format_size(job.memory.remaining_bytes)));
  print_switchover(job);
  if (!job.error) return;
  Error plain = *job.error;
  plain.hint.clear();
  print_out(fmt::format("  {} {}", tinted(console.color_out, Tint::bad, "error:"),
                        printable(plain.message())));
  if (!job.error->hint.empty()) print_out(fmt::format("  hint: {}", printable(job.error->hint)));
}

void print_plan(const Console& console, const api::Plan& plan) {
  print_out(tinted(console.color_out, Tint::bold,
                   fmt::format("{} -> {} (dry run, nothing is changed)", printable(plan.vm),
                               printable(plan.destination))));
  Table table({"disk", "role", "size", "filter", "volume", "on the destination"});
  for (const auto& disk : plan.disks)
    table.add({disk.target, std::string(api::name_of(disk.role)), format_size(disk.size_bytes),
               std::string(api::name_of(disk.method)), disk.path,
               fmt::format("{} {}", api::name_of(disk.destination_action),
                           disk.destination_path)});
  if (!table.empty()) table.print(console, "  ");
  print_out(fmt::format("  memory {}, disks at most {}", format_size(plan.memory_bytes),
                        format_size(plan.disk_bytes)));
  print_checks(console, plan.checks);
  print_out(plan.ok() ? tinted(console.color_out, Tint::good, "the migration can start")
                      : tinted(console.color_out, Tint::bad, "the migration would not start"));
}

void print_jobs(const Console& console, const std::vector<JobStatus>& jobs) {
  Table table({"job", "vm", "direction", "peer", "state", "progress", "started"});
  for (const auto& job : jobs)
    table.add({job.id, job.vm, std::string(api::name_of(job.direction)),
               job.direction == api::Direction::out || job.peer.empty() ? job.destination
                                                                        : job.peer,
               phase_text(job), fmt::format("{:.0f} %", job.progress * 100),
               job.started_at ? api::format_time(*job.started_at) : "-"});
  table.print(console);
}

}  // namespace ferry::ctl
