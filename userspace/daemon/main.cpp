// SPDX-License-Identifier: GPL-2.0-or-later
// ferryd: joins the rooms: control loop, jobs, peer link, admin API. Ends on SIGTERM and SIGINT after
// every running job was taken back.
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "api/api_server.h"
#include "base/log.h"
#include "daemon/backend.h"
#include "daemon/bar_watch.h"
#include "daemon/bars.h"
#include "daemon/kept_copies.h"
#include "daemon/peer_server.h"
#include "daemon/recovery.h"
#include "filter/attachment.h"
#include "store/ownership_store.h"

namespace ferry::daemon {
namespace {

Result<store::OwnershipStore> open_records(const Config& config) {
  std::error_code ec;
  for (const auto& dir : {config.run_dir, config.state_dir}) {
    std::filesystem::create_directories(dir, ec);
    if (ec)
      return make_error(Errc::permission, "cannot make the directory " + dir + ": " + ec.message(), 0,
                        "is ferryd running as root?");
  }
  return store::OwnershipStore::open(config.state_dir + "/ownership.db");
}

// Of migrations that ended with an earlier ferryd. No job has begun yet.
void remove_stale_sockets(const Config& config) {
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(config.run_dir, ec))
    if (entry.is_socket(ec) && entry.path() != config.socket) std::filesystem::remove(entry.path(), ec);
}

// Documented in ferryd(8): 0 when nobody can write to a volume that another host owns, else 1.
int bar_volumes(const Config& config) {
  auto store = open_records(config);
  auto reports = store ? bar_all(*store) : Result<std::vector<BarReport>>(store.error());
  if (!reports) {
    spdlog::error("which volumes other hosts own cannot be told: {}", reports.error().message());
    return 1;
  }
  return std::ranges::all_of(*reports, [](const BarReport& report) { return report.bar.ok(); }) ? 0 : 1;
}

int run(const Config& config) {
  auto store = open_records(config);
  // A filter may have to stay; what an earlier ferryd had open past it, never.
  if (auto removed = filter::remove_stale_devices(); !removed) spdlog::warn("{}", removed.error().message());
  auto barred = store ? bar_all(*store) : Result<std::vector<BarReport>>(store.error());
  auto watch = barred ? BarWatch::start(*store) : Result<BarWatch>(barred.error());
  if (!watch) {
    spdlog::error("{}", watch.error().message());
    return exit_code(watch.error().code);
  }
  ControlLoop loop;
  Jobs jobs;
  api::EventFeed feed;
  const auto publish = [&feed](const api::JobStatus& s) { feed.publish(s); };
  Backend backend(config, loop, *store, jobs, feed);
  auto recovered = recover(config, loop, *store, jobs, publish);
  if (!recovered) {
    spdlog::error("{}", recovered.error().message());
    return exit_code(recovered.error().code);
  }
  KeptCopies kept(loop, *store);
  PeerServer peers(config, loop, *store, jobs, publish);
  if (auto started = peers.start(); !started) {
    if (started.error().code != Errc::permission && started.error().code != Errc::not_found) {
      spdlog::error("peer link: {}", started.error().message());
      return exit_code(started.error().code);
    }
    spdlog::warn("no peer link: {}", started.error().message());
  }
  remove_stale_sockets(config);
  api::ApiServerOptions options;
  options.socket_path = config.socket;
  auto server = api::ApiServer::start(options, backend, feed);
  if (!server) {
    spdlog::error("admin API: {}", server.error().message());
    return exit_code(server.error().code);
  }
  for (auto& errand : *recovered) backend.go_on(std::move(errand));
  ::sd_notify(0, "READY=1");
  spdlog::info("ferryd {} on {}, admin socket {}", kVersion, config.host_name, config.socket);

  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  int signal = 0;
  sigwait(&set, &signal);
  ::sd_notify(0, "STOPPING=1");
  spdlog::info("stopping");
  const bool settled = jobs.stop_outgoing();
  peers.stop();
  jobs.settle_incoming();
  (*server)->stop();
  if (settled) return 0;
  // Were the hypervisor's connections closed in order, it would let a guest go on whose disks may be
  // another host's. Gone without a word it leaves it paused, and the next start resolves it.
  spdlog::warn("who owns the disks of a VM is in doubt: it is left paused; the next start asks its peer");
  spdlog::shutdown();
  std::_Exit(0);
}

}  // namespace
}  // namespace ferry::daemon

int main(int argc, char** argv) {
  using namespace ferry;
  // Before any thread exists, so that all of them inherit it: signals are taken by sigwait alone.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  auto line = daemon::parse_command_line(argc, argv);
  if (!line) {
    std::fprintf(stderr, "ferryd: %s\n", line.error().message().c_str());
    return exit_code(line.error().code);
  }
  if (line->show_help) {
    std::fputs(line->help.c_str(), stdout);
    return 0;
  }
  if (line->show_version) {
    std::printf("ferryd %s\n", daemon::kVersion);
    return 0;
  }
  log_setup(line->config.verbose);
  if (line->bar_volumes) return daemon::bar_volumes(line->config);
  return daemon::run(line->config);
}
