// SPDX-License-Identifier: GPL-2.0-or-later
#include "progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "units.h"

namespace ferry::ctl {
namespace {

constexpr size_t kBarMin = 10;
constexpr size_t kBarMax = 40;
constexpr size_t kWidthDefault = 80;

std::string title(const api::JobStatus& job) {
  return fmt::format("{} -> {}", printable(job.vm), printable(job.destination));
}

// Most important first: a narrow terminal shows the beginning.
std::vector<std::string> figures(const api::JobStatus& job) {
  std::vector<std::string> out{fmt::format("{:.1f} %", job.progress * 100)};
  out.push_back(format_rate(job.rate_bytes_per_s));
  if (job.eta_ms) out.push_back("ETA " + format_duration(*job.eta_ms));
  out.push_back("left " + format_size(left_bytes(job)));
  out.push_back("dirty " + format_size(job.residual_bytes));
  if (job.downtime_estimate_ms)
    out.push_back("downtime ~" + format_duration(*job.downtime_estimate_ms));
  return out;
}

class SilentProgress : public Progress {
 public:
  void update(const api::JobStatus&) override {}
  void note(std::string_view text) override { print_err(fmt::format("migrate-ctl: {}", text)); }
  void one_line(const api::JobStatus& job) override { print_err(plain_line(job)); }
};

class PlainProgress : public SilentProgress {
 public:
  void update(const api::JobStatus& job) override {
    if (api::is_final(job.state)) return;  // the summary tells
    auto phase = phase_text(job);
    if (phase == phase_) return;
    phase_ = std::move(phase);
    print_err(plain_line(job));
  }

 private:
  std::string phase_;
};

class JsonProgress : public SilentProgress {
 public:
  void update(const api::JobStatus& job) override {
    print_err(api::write_json(progress_json(job)));
  }
  void note(std::string_view text) override {
    print_err(api::write_json(api::Json{{"note", text}}));
  }
  void one_line(const api::JobStatus& job) override { update(job); }
};

class BarProgress : public SilentProgress {
 public:
  explicit BarProgress(bool color) : color_(color) {}
  ~BarProgress() override { clear(); }
  void update(const api::JobStatus& job) override {
    if (api::is_final(job.state)) return;
    line_ = bar_line(job, width());
    draw();
  }
  void note(std::string_view text) override {
    clear();
    SilentProgress::note(text);
    draw();
  }
  void one_line(const api::JobStatus& job) override {
    clear();
    SilentProgress::one_line(job);
    draw();
  }
  void close() override {
    clear();
    line_.clear();
  }

 private:
  static size_t width() {
    winsize size{};
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kWidthDefault;
    return size.ws_col;
  }
  void clear() { std::fputs("\r\033[K", stderr); }
  void draw() {
    if (line_.empty()) return;
    std::fputs(fmt::format("\r{}\033[K", tinted(color_, Tint::bold, line_)).c_str(), stderr);
    std::fflush(stderr);
  }

  const bool color_;
  std::string line_;
};

}  // namespace

std::unique_ptr<Progress> make_progress(const Console& console, bool json_lines) {
  if (json_lines) return std::make_unique<JsonProgress>();
  if (console.quiet) return std::make_unique<SilentProgress>();
  if (::isatty(STDERR_FILENO) == 1) return std::make_unique<BarProgress>(console.color_err);
  return std::make_unique<PlainProgress>();
}

std::string phase_text(const api::JobStatus& job) {
  const std::string attempt = job.attempt > 1 ? fmt::format(" (attempt {})", job.attempt) : "";
  if (job.state == api::JobState::precopy)
    return fmt::format("pre-copy round {}{}", job.round, attempt);
  return std::string(api::name_of(job.state)) + attempt;
}

uint64_t left_bytes(const api::JobStatus& job) {
  uint64_t left = job.memory.remaining_bytes;
  for (const auto& disk : job.disks)
    left += disk.bytes_total - std::min(disk.bytes_total, disk.bytes_sent);
  return left;
}

std::string bar_line(const api::JobStatus& job, size_t width) {
  const std::string head = fmt::format("{}  {} ", title(job), phase_text(job));
  const size_t room = width > 0 ? width - 1 : 0;  // the last column would wrap on some terminals
  std::string tail;
  for (const auto& figure : figures(job)) {
    const std::string longer = tail + "  " + figure;
    if (head.size() + kBarMin + 2 + longer.size() > room) break;
    tail = longer;
  }
  const size_t used = head.size() + tail.size() + 2;
  const size_t bar = std::min(room > used ? room - used : 0, kBarMax);
  const double part = std::clamp(job.progress, 0.0, 1.0);
  const auto full = static_cast<size_t>(part * static_cast<double>(bar));
  std::string line =
      fmt::format("{}[{}{}]{}", head, std::string(full, '#'), std::string(bar - full, '-'), tail);
  line.resize(std::min(line.size(), room));
  return line;
}

std::string plain_line(const api::JobStatus& job) {
  std::string line = fmt::format("{}: {}", title(job), phase_text(job));
  for (const auto& figure : figures(job)) line += ", " + figure;
  return line;
}

api::Json progress_json(const api::JobStatus& job) {
  uint64_t sent = 0;
  uint64_t total = 0;
  for (const auto& disk : job.disks) {
    sent += disk.bytes_sent;
    total += disk.bytes_total;
  }
  const auto maybe = [](const std::optional<uint64_t>& value) {
    return value ? api::Json(*value) : api::Json(nullptr);
  };
  return api::Json{{"job", job.id},
                   {"vm", job.vm},
                   {"state", api::name_of(job.state)},
                   {"round", job.round},
                   {"progress", job.progress},
                   {"bytes_sent", sent},
                   {"bytes_total", total},
                   {"rate_bytes_per_s", job.rate_bytes_per_s},
                   {"dirty_rate_bytes_per_s", job.dirty_rate_bytes_per_s},
                   {"residual_bytes", job.residual_bytes},
                   {"eta_ms", maybe(job.eta_ms)},
                   {"downtime_estimate_ms", maybe(job.downtime_estimate_ms)}};
}

}  // namespace ferry::ctl
