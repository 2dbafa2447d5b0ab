// SPDX-License-Identifier: GPL-2.0-or-later
// Process 1 of the test guest: sets the guest up, starts the three workers and obeys the commands
// that the outside writes into the beat disk.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "block_device.h"
#include "shared.h"

namespace ferry::guest {

uint64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

void sleep_until_ns(uint64_t when_ns) {
  timespec when{};
  when.tv_sec = static_cast<time_t>(when_ns / 1'000'000'000);
  when.tv_nsec = static_cast<long>(when_ns % 1'000'000'000);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, nullptr) == EINTR) {
  }
}

namespace {

void say_list(const char* format, va_list arguments) {
  char line[512];
  int count = std::vsnprintf(line, sizeof(line) - 1, format, arguments);
  size_t length = std::min<size_t>(count < 0 ? 0 : static_cast<size_t>(count), sizeof(line) - 2);
  line[length] = '\n';
  // One write per line: the workers share the console.
  if (write(STDOUT_FILENO, line, length + 1) < 0) return;
}

}  // namespace

void say(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say_list(format, arguments);
  va_end(arguments);
}

void die(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say_list(format, arguments);
  va_end(arguments);
  _exit(1);
}

namespace {

constexpr uint64_t poll_interval_ns = 100'000'000;

// guest.NAME=NUMBER on the kernel's command line.
struct Parameter {
  const char* name;
  uint64_t Options::*place;
};
constexpr Parameter parameters[] = {
    {"disk_rate", &Options::records_per_s},
    {"sync_every", &Options::records_per_sync},
    {"prefill", &Options::prefill_percent},
    {"memory_rate", &Options::pages_per_s},
    {"memory_mib", &Options::memory_mib},
    {"beat_us", &Options::beat_interval_us},
    {"clear_percent", &Options::clear_percent},
    {"swap_rotational", &Options::swap_rotational},
    {"swap_discard", &Options::swap_discard},
};

// The value after "NAME=" in a list of words.
std::optional<uint64_t> find_value(const std::string& text, const std::string& name) {
  std::string padded = " " + text;
  size_t at = padded.find(" " + name + "=");
  if (at == std::string::npos) return std::nullopt;
  return std::strtoull(padded.c_str() + at + name.size() + 2, nullptr, 10);
}

Options read_options() {
  std::string line = read_line("/proc/cmdline");
  Options options;
  for (const Parameter& parameter : parameters)
    if (auto value = find_value(line, std::string("guest.") + parameter.name))
      options.*parameter.place = *value;
  return options;
}

void tune_kernel() {
  // Reclaim starts early, so that the real-time beat always finds a free page.
  write_setting("/proc/sys/vm/min_free_kbytes", "4096");
  write_setting("/proc/sys/vm/watermark_scale_factor", "200");
  write_setting("/proc/sys/vm/overcommit_memory", "1");
  write_setting("/proc/sys/vm/swappiness", "100");
  write_setting("/proc/sys/kernel/printk", "4");
  // What the boot left in dentries and inodes is a good part of this small memory.
  write_setting("/proc/sys/vm/drop_caches", "2");
}

class Commander {
 public:
  Commander(Shared& shared, const Options& options)
      : shared_(shared), options_(options), device_("beat"), block_(make_aligned<MessageBlock>(1)) {
    // A command left over from an earlier guest is not for this one.
    if (auto command = read_command()) last_id_ = command->id;
  }

  void poll() {
    read_swap();
    auto command = read_command();
    if (command && command->id > last_id_) {
      last_id_ = command->id;
      std::string text(command->text, command->length_bytes);
      say("command: %s", text.c_str());
      obey(text);
    }
    // First the disk, then the memory: both at once would only slow each other down.
    if (verifying_ && shared_.disk.done == shared_.disk.wanted) {
      if (verify_memory_) {
        verify_memory_ = false;
        shared_.memory.wanted++;
      } else if (shared_.memory.done == shared_.memory.wanted) {
        verifying_ = false;
        answer(verify_text());
      }
    }
  }

 private:
  struct Command {
    uint64_t id;
    uint32_t length_bytes;
    const char* text;
  };

  std::optional<Command> read_command() {
    MessageBlock& block = *block_;
    if (device_.read(&block, sizeof(block), command_offset_bytes) != 0) return std::nullopt;
    if (block.magic != command_magic || block.length_bytes > sizeof(block.text)) return std::nullopt;
    if (crc32(block.text, block.length_bytes) != block.crc) return std::nullopt;  // half written
    return Command{block.id, block.length_bytes, block.text};
  }

  void obey(const std::string& text) {
    std::string verb = text.substr(0, text.find(' '));
    if (verb == "verify") {
      verifying_ = true;
      verify_memory_ = text.find("disk") == std::string::npos;
      if (text.find("memory") == std::string::npos) shared_.disk.wanted++;
      return;
    }
    if (verb == "poweroff") {
      answer(report_text());
      say("guestd: power off");
      sync();
      reboot(RB_POWER_OFF);
    }
    if (verb == "pause" || verb == "resume") {
      uint64_t paused = verb == "pause";
      if (text.find("memory") == std::string::npos) shared_.disk_paused = paused;
      if (text.find("disk") == std::string::npos) shared_.memory_paused = paused;
    } else if (verb == "set") {
      if (auto value = find_value(text, "disk_rate")) shared_.records_per_s = *value;
      if (auto value = find_value(text, "sync_every")) shared_.records_per_sync = *value;
      if (auto value = find_value(text, "memory_rate")) shared_.pages_per_s = *value;
    } else if (verb == "spoil") {
      if (text.find("disk") != std::string::npos) shared_.spoil_disk++;
      if (text.find("memory") != std::string::npos) shared_.spoil_memory++;
    } else if (verb != "report") {
      answer("{\"ok\":false,\"error\":\"unknown command\"}");
      return;
    }
    answer(report_text());
  }

  void answer(const std::string& text) {
    MessageBlock& block = *block_;
    std::memset(&block, 0, sizeof(block));
    block.magic = answer_magic;
    block.id = last_id_;
    block.length_bytes = static_cast<uint32_t>(std::min(text.size(), sizeof(block.text)));
    std::memcpy(block.text, text.data(), block.length_bytes);
    block.crc = crc32(block.text, block.length_bytes);
    if (device_.write(&block, sizeof(block), answer_offset_bytes) != 0) shared_.worker_errors++;
  }

  static std::string field(const char* name, uint64_t value) {
    return std::string(",\"") + name + "\":" + std::to_string(value);
  }

  uint64_t all_errors() const {
    return shared_.disk_errors + shared_.page_errors + shared_.worker_errors;
  }

  std::string counters() const {
    return field("disk_errors", shared_.disk_errors) + field("page_errors", shared_.page_errors) +
           field("worker_errors", shared_.worker_errors) +
           field("records_written", shared_.records_written) +
           field("records_acked", shared_.records_acked) +
           field("blocks_cleared", shared_.blocks_cleared) +
           field("pages_verified", shared_.pages_verified) +
           field("pages_written", shared_.pages_written) +
           field("memory_passes", shared_.memory_passes) +
           field("swap_used_kib", shared_.swap_used_kib) +
           field("swap_total_kib", shared_.swap_total_kib) + field("beats", shared_.beats) +
           field("late_beats", shared_.late_beats) +
           field("longest_gap_us", shared_.longest_gap_us) + field("ready", shared_.ready) +
           field("disk_rate", shared_.records_per_s) + field("memory_rate", shared_.pages_per_s) +
           field("disk_paused", shared_.disk_paused) +
           field("memory_paused", shared_.memory_paused) +
           field("memory_mib", options_.memory_mib) +
           field("uptime_ms", monotonic_ns() / 1'000'000);
  }

  std::string report_text() const {
    return std::string("{\"ok\":") + (all_errors() == 0 ? "true" : "false") + counters() + "}";
  }

  static std::string report_of(const Report& report) {
    return "{\"checked\":" + std::to_string(report.checked) + field("good", report.good) +
           field("zero", report.zero) + field("untouched", report.untouched) +
           field("undefined", report.undefined) + field("errors", report.errors) +
           field("duration_ms", report.duration_ms) + ",\"first_error\":\"" + report.first_error +
           "\"}";
  }

  std::string verify_text() const {
    return std::string("{\"ok\":") + (all_errors() == 0 ? "true" : "false") +
           ",\"disk\":" + report_of(shared_.disk) + ",\"memory\":" + report_of(shared_.memory) +
           counters() + "}";
  }

  void read_swap() {
    std::ifstream file("/proc/meminfo");
    uint64_t total = 0;
    uint64_t free = 0;
    std::string word;
    while (file >> word) {
      if (word == "SwapTotal:") file >> total;
      if (word == "SwapFree:") file >> free;
    }
    shared_.swap_total_kib = total;
    shared_.swap_used_kib = total - free;
  }

  Shared& shared_;
  const Options& options_;
  BlockDevice device_;
  Aligned<MessageBlock> block_;
  uint64_t last_id_ = 0;
  bool verifying_ = false;
  bool verify_memory_ = false;
};

using Worker = void (*)(Shared&, const Options&);

pid_t start(Worker worker, Shared& shared, const Options& options, const char* kill_score) {
  pid_t child = fork();
  if (child < 0) die("fork: %s", std::strerror(errno));
  if (child == 0) {
    write_setting("/proc/self/oom_score_adj", kill_score);
    worker(shared, options);
  }
  return child;
}

void run() {
  Options options = read_options();
  tune_kernel();
  void* mapping = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                       -1, 0);
  if (mapping == MAP_FAILED) die("no shared memory");
  Shared& shared = *new (mapping) Shared{};
  shared.records_per_s = options.records_per_s;
  shared.records_per_sync = options.records_per_sync;
  shared.pages_per_s = options.pages_per_s;

  // The first beat goes out before anything slow, so that the outside sees the boot.
  Commander commander(shared, options);
  start(run_beat, shared, options, "-1000");
  start(run_disk_writer, shared, options, "-1000");
  start_swap("swap", options.swap_rotational != 0, options.swap_discard);
  start(run_memory_worker, shared, options, "0");
  if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) die("guestd: mlockall failed");
  say("guestd: started %llu ms after boot",
      static_cast<unsigned long long>(monotonic_ns() / 1'000'000));

  uint64_t announced = 0;
  for (;;) {
    commander.poll();
    int status = 0;
    while (pid_t child = waitpid(-1, &status, WNOHANG)) {
      if (child < 0) break;
      shared.worker_errors++;
      say("guestd: worker %d ended with status %x", child, status);
    }
    if (announced != shared.ready) {
      announced = shared.ready;
      if (announced == (ready_disk | ready_memory)) say("guestd: ready, all workers run");
    }
    sleep_until_ns(monotonic_ns() + poll_interval_ns);
  }
}

}  // namespace
}  // namespace ferry::guest

int main() {
  ferry::guest::run();
  return 1;
}
