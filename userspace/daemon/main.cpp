// SPDX-License-Identifier: GPL-2.0-or-later
// ferryd: joins the rooms: control loop, jobs, peer link, admin API. Ends on SIGTERM and SIGINT after
// every running job was taken back.
#include <systemd/sd-daemon.h>

#include <csignal>
#include <cstdio>
#include <filesystem>

#include "api/api_server.h"
#include "base/log.h"
#include "daemon/backend.h"
#include "daemon/peer_server.h"

namespace ferry::daemon {
namespace {

int run(const Config& config) {
  std::error_code ec;
  for (const auto& dir : {config.run_dir, config.state_dir}) {
    std::filesystem::create_directories(dir, ec);
    if (ec) {
      spdlog::error("cannot make the directory {}: {}; is ferryd running as root?", dir, ec.message());
      return exit_code(Errc::permission);
    }
  }
  ControlLoop loop;
  Jobs jobs;
  api::EventFeed feed;
  Backend backend(config, loop, jobs, feed);
  PeerServer peers(config, loop, jobs, [&feed](const api::JobStatus& s) { feed.publish(s); });
  if (auto started = peers.start(); !started) {
    if (started.error().code != Errc::permission && started.error().code != Errc::not_found) {
      spdlog::error("peer link: {}", started.error().message());
      return exit_code(started.error().code);
    }
    spdlog::warn("no peer link: {}", started.error().message());
  }
  api::ApiServerOptions options;
  options.socket_path = config.socket;
  auto server = api::ApiServer::start(options, backend, feed);
  if (!server) {
    spdlog::error("admin API: {}", server.error().message());
    return exit_code(server.error().code);
  }
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
  jobs.stop_outgoing();
  peers.stop();
  (*server)->stop();
  return 0;
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
  return daemon::run(line->config);
}
