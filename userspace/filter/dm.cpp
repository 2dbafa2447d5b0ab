// SPDX-License-Identifier: GPL-2.0-or-later
#include "filter/dm.h"

#include <libdevmapper.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <memory>
#include <mutex>
#include <thread>

#include "base/log.h"

namespace ferry::filter::dm {
namespace {

// Far longer than udev's rules take, even on an emulated host, and short against a migration.
constexpr std::chrono::seconds kUdevPatience{30};
constexpr std::chrono::milliseconds kUdevPause{2};
// One per change of a task: it may create, load, resume, and remove again after an error.
constexpr int kMostAnswers = 4;

std::mutex library_lock;
// The last complaint of the library under library_lock; its errno values are not always kept.
std::string last_complaint;

__attribute__((format(printf, 5, 6)))
void take_log(int level, const char*, int, int, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if ((level & 7) <= 4) last_complaint = text;
  spdlog::debug("libdevmapper: {}", text);
}

struct TaskDeleter {
  void operator()(dm_task* task) const { dm_task_destroy(task); }
};
using Task = std::unique_ptr<dm_task, TaskDeleter>;

Result<Task> make_task(int type, const char* verb, const std::string& name) {
  dm_log_with_errno_init(take_log);
  last_complaint.clear();
  Task task(dm_task_create(type));
  if (!task || (!name.empty() && !dm_task_set_name(task.get(), name.c_str())))
    return make_error(Errc::failed, std::string("cannot ") + verb + " the device-mapper device " +
                      name + ": " + last_complaint);
  return task;
}

Error task_error(dm_task* task, const char* verb, const std::string& name) {
  int sys = dm_task_get_errno(task);
  std::string what = std::string("cannot ") + verb + " the device-mapper device " + name;
  // The library's words name the ioctl; the errno's meaning is appended by message().
  if (!last_complaint.empty()) what += " (" + last_complaint + ')';
  std::string hint;
  if (sys == EINVAL) hint = "the kernel's log (dmesg) says why";
  if (sys == EACCES || sys == EPERM) hint = "run as root";
  return sys_error(std::move(what), sys, std::move(hint));
}

Status run(dm_task* task, const char* verb, const std::string& name) {
  if (!dm_task_run(task)) return task_error(task, verb, name);
  return ok_status();
}

// Waits until udev has answered for the cookie; false when it does not. That happens: when the
// kernel has no memory for the copy of an event that is udev's, the event is lost, and the kernel
// still says that it sent one (lib/kobject_uevent.c takes ENOBUFS for success). dm_udev_wait()
// would wait for ever. Without udev's answer the library makes the nodes itself.
bool wait_for_udev(uint32_t cookie) {
  // No udev: there is nobody to wait for, and this call makes the nodes. The other, below, says of
  // such a cookie that it is not ready, for ever, and makes none.
  if (cookie == 0) return dm_udev_wait(cookie);
  const auto deadline = std::chrono::steady_clock::now() + kUdevPatience;
  for (int ready = 0;;) {
    if (!dm_udev_wait_immediate(cookie, &ready)) return false;
    if (ready) return true;
    if (std::chrono::steady_clock::now() > deadline) break;
    std::this_thread::sleep_for(kUdevPause);
  }
  // In udev's place, for each answer that is missing; the last look removes the cookie. An answer
  // that comes later finds none, which harms nobody.
  for (int ready = 0, missing = 0; !ready && missing < kMostAnswers; ++missing) {
    (void)dm_udev_complete(cookie);
    if (!dm_udev_wait_immediate(cookie, &ready)) break;
  }
  return false;
}

// Runs a task that changes nodes under /dev and waits for udev. `flags`: DM_UDEV_*.
Status run_with_udev(dm_task* task, uint16_t flags, const char* verb, const std::string& name) {
  uint32_t cookie = 0;
  if (!dm_task_set_cookie(task, &cookie, flags))
    return task_error(task, verb, name);
  Status status = run(task, verb, name);
  // Also after a failure: the library has raised the semaphore already.
  if (!wait_for_udev(cookie)) spdlog::warn("udev did not answer for the device {}", name);
  return status;
}

Status add_lines(dm_task* task, const DmTable& table) {
  for (const auto& line : table)
    if (!dm_task_add_target(task, line.start, line.length, line.type.c_str(), line.params.c_str()))
      return make_error(Errc::failed, "cannot build a device-mapper table: " + last_complaint);
  return ok_status();
}

std::string sysfs_dir(dev_t device) {
  return "/sys/dev/block/" + device_text(device);
}

Status load_unlocked(const std::string& name, const DmTable& table, bool read_only) {
  auto task = make_task(DM_DEVICE_RELOAD, "load a table into", name);
  if (!task.ok()) return std::move(task).error();
  if (read_only && !dm_task_set_ro(task->get())) return task_error(task->get(), "load", name);
  FERRY_TRY(add_lines(task->get(), table));
  return run(task->get(), "load a table into", name);
}

}  // namespace

Result<DeviceInfo> info(const std::string& name) {
  std::lock_guard lock(library_lock);
  auto task = make_task(DM_DEVICE_INFO, "ask about", name);
  if (!task.ok()) return std::move(task).error();
  FERRY_TRY(run(task->get(), "ask about", name));
  dm_info raw{};
  if (!dm_task_get_info(task->get(), &raw)) return task_error(task->get(), "ask about", name);
  if (!raw.exists)
    return make_error(Errc::not_found, "there is no device-mapper device " + name);
  DeviceInfo info;
  info.name = name;
  if (const char* uuid = dm_task_get_uuid(task->get())) info.uuid = uuid;
  info.device = makedev(raw.major, raw.minor);
  info.open_count = raw.open_count;
  info.event_nr = raw.event_nr;
  info.suspended = raw.suspended;
  info.read_only = raw.read_only;
  info.inactive_table = raw.inactive_table;
  return info;
}

Result<DmTable> table(const std::string& name) {
  std::lock_guard lock(library_lock);
  auto task = make_task(DM_DEVICE_TABLE, "read the table of", name);
  if (!task.ok()) return std::move(task).error();
  FERRY_TRY(run(task->get(), "read the table of", name));
  dm_info raw{};
  if (!dm_task_get_info(task->get(), &raw)) return task_error(task->get(), "ask about", name);
  if (!raw.exists)
    return make_error(Errc::not_found, "there is no device-mapper device " + name);
  DmTable lines;
  void* next = nullptr;
  do {
    uint64_t start = 0, length = 0;
    char* type = nullptr;
    char* params = nullptr;
    next = dm_get_next_target(task->get(), next, &start, &length, &type, &params);
    if (type) lines.push_back({start, length, type, params ? params : ""});
  } while (next);
  return lines;
}

Result<std::vector<std::string>> names() {
  std::lock_guard lock(library_lock);
  auto task = make_task(DM_DEVICE_LIST, "list", "");
  if (!task.ok()) return std::move(task).error();
  FERRY_TRY(run(task->get(), "list", "(all)"));
  std::vector<std::string> names;
  const dm_names* entry = dm_task_get_names(task->get());
  if (!entry || entry->dev == 0) return names;
  for (;;) {
    names.emplace_back(entry->name);
    if (entry->next == 0) break;
    entry = reinterpret_cast<const dm_names*>(reinterpret_cast<const char*>(entry) + entry->next);
  }
  return names;
}

Status create(const CreateRequest& request) {
  std::lock_guard lock(library_lock);
  auto task = make_task(DM_DEVICE_CREATE, "create", request.name);
  if (!task.ok()) return std::move(task).error();
  if (!dm_task_set_uuid(task->get(), request.uuid.c_str()) ||
      (request.read_only && !dm_task_set_ro(task->get())))
    return task_error(task->get(), "create", request.name);
  FERRY_TRY(add_lines(task->get(), request.table));
  uint16_t flags = 0;
  if (request.hidden)
    flags = DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG | DM_UDEV_DISABLE_DISK_RULES_FLAG |
            DM_UDEV_DISABLE_OTHER_RULES_FLAG;
  return run_with_udev(task->get(), flags, "create", request.name);
}

Status load(const std::string& name, const DmTable& table, bool read_only) {
  std::lock_guard lock(library_lock);
  return load_unlocked(name, table, read_only);
}

Status clear(const std::string& name) {
  std::lock_guard lock(library_lock);
  auto task = make_task(DM_DEVICE_CLEAR, "clear", name);
  if (!task.ok()) return std::move(task).error();
  return run(task->get(), "drop the inactive table of", name);
}

Status resume(const std::string& name) {
  std::lock_guard lock(library_lock);
  auto task = make_task(DM_DEVICE_RESUME, "resume", name);
  if (!task.ok()) return std::move(task).error();
  if (!dm_task_no_flush(task->get()) || !dm_task_skip_lockfs(task->get()))
    return task_error(task->get(), "resume", name);
  return run_with_udev(task->get(), 0, "resume", name);
}

Status suspend(const std::string& name) {
  std::lock_guard lock(library_lock);
  auto task = make_task(DM_DEVICE_SUSPEND, "suspend", name);
  if (!task.ok()) return std::move(task).error();
  if (!dm_task_no_flush(task->get()) || !dm_task_skip_lockfs(task->get()))
    return task_error(task->get(), "suspend", name);
  return run(task->get(), "suspend", name);
}

Status remove(const std::string& name) {
  std::lock_guard lock(library_lock);
  auto task = make_task(DM_DEVICE_REMOVE, "remove", name);
  if (!task.ok()) return std::move(task).error();
  // udev's blkid may hold the device open for an instant after each change.
  if (!dm_task_retry_remove(task->get())) return task_error(task->get(), "remove", name);
  return run_with_udev(task->get(), 0, "remove", name);
}

std::string device_text(dev_t device) {
  return std::to_string(major(device)) + ':' + std::to_string(minor(device));
}

std::optional<std::string> name_of(dev_t device) {
  std::ifstream file(sysfs_dir(device) + "/dm/name");
  std::string name;
  if (!std::getline(file, name) || name.empty()) return std::nullopt;
  return name;
}

bool is_request_based(dev_t device) {
  // Only request-based queues show their hardware queues there.
  struct stat status {};
  return ::stat((sysfs_dir(device) + "/mq").c_str(), &status) == 0;
}

}  // namespace ferry::filter::dm
