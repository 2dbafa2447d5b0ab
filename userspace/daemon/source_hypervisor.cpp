// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/source_hypervisor.h"

#include "base/log.h"
#include "daemon/channel_pipe.h"

namespace ferry::daemon {

using migration::failure_of;
using T = migration::SourceEventType;

namespace {

// How long the destination's libvirt is asked whether its guest runs; afterwards its ferryd is asked, which
// has a libvirt of its own to look at.
constexpr auto kResolveTime = std::chrono::seconds(60);
constexpr auto kResolvePause = std::chrono::seconds(1);

}  // namespace

void let_guest_go_on(const Config& config, const std::string& vm) {
  auto libvirt = hypervisor::Libvirt::connect(config.libvirt_uri);
  if (!libvirt) return spdlog::warn("{}: {}", vm, libvirt.error().message());
  auto state = (*libvirt)->state(vm);
  if (!state || state->state != hypervisor::DomainInfo::State::paused) return;
  // A guest paused by its admin is left alone.
  if (state->reason.find("migration") == std::string::npos) return;
  spdlog::warn("{}: libvirt left it paused after its migration had failed; it goes on", vm);
  if (auto resumed = (*libvirt)->resume(vm); !resumed) spdlog::error("{}", resumed.error().message());
}

SourceHypervisor::SourceHypervisor(const Config& config, SourceSession& session, GuestMigration migration,
                                   Post post)
    : config_(config), session_(session), migration_(std::move(migration)),
      post_(std::move(post)) {}

SourceHypervisor::~SourceHypervisor() = default;

void SourceHypervisor::start() {
  {
    std::lock_guard lock(mutex_);
    running_ = true;
  }
  migration_worker_.post([this] {
    auto ended = run();
    {
      std::lock_guard lock(mutex_);
      running_ = false;
    }
    migration::SourceEvent done{T::hypervisor_done};
    if (!ended) done.error = std::move(ended).error();
    post_(std::move(done));
  });
}

std::shared_ptr<hypervisor::Libvirt> SourceHypervisor::libvirt() {
  std::lock_guard lock(mutex_);
  return libvirt_;
}

std::shared_ptr<hypervisor::FinishGate> SourceHypervisor::gate() {
  std::lock_guard lock(mutex_);
  return gate_;
}

// libvirt moves whatever the VM has by then, and on the destination a volume of that path may hold anything. `busy` is
// tried again, with the disks of that time.
Status SourceHypervisor::need_same_disks(hypervisor::Libvirt& libvirt) const {
  auto disks = libvirt.disks(migration_.vm);
  if (!disks) return std::move(disks).error();
  std::map<std::string, std::string> now;
  for (const auto& disk : *disks) now[disk.target] = disk.path;
  if (now == migration_.disks) return ok_status();
  const auto list = [](const auto& paths) {
    std::string text;
    for (const auto& [target, path] : paths) text += (text.empty() ? "" : ", ") + target + " " + path;
    return text.empty() ? "none" : text;
  };
  return make_error(Errc::busy,
                    "the disks of " + migration_.vm + " are others now (" + list(now) + ") than those that were copied (" +
                        list(migration_.disks) + ")",
                    0, "migrate it again; attach and detach disks before or after");
}

Status SourceHypervisor::run() {
  // A connection of the job's own: its events end with it.
  auto connection = hypervisor::Libvirt::connect(config_.libvirt_uri);
  if (!connection) return std::move(connection).error();
  std::shared_ptr<hypervisor::Libvirt> libvirt = std::move(*connection);
  FERRY_TRY(libvirt->on_lifecycle([this](const std::string& vm, hypervisor::LifecycleEvent event) {
    if (vm == migration_.vm && event == hypervisor::LifecycleEvent::paused_for_migration) post_({T::guest_paused});
  }));
  hypervisor::FinishCallbacks callbacks;
  callbacks.on_finish_seen = [this, libvirt] {
    // libvirt has let nobody change the VM since it began.
    if (auto same = need_same_disks(*libvirt); !same) return not_started(std::move(same).error());
    post_({T::finish_seen});
  };
  callbacks.on_finish_cancelled = [this] { post_({T::finish_cancelled}); };
  // Nobody is left to forward Finish to. Whether the guest may go on here is not this room's to decide.
  callbacks.on_link_lost_while_held = [this](const Error& error) { not_started(error); };
  callbacks.on_finish_reply = [this](bool guest_runs) {
    if (guest_runs) return;
    not_started(make_error(Errc::failed, "the destination's hypervisor could not start the guest", 0,
                           "look at libvirt's log on the destination"));
  };
  callbacks.on_reply_lost = [this](const Error& error) {
    spdlog::warn("{}: libvirt's answer was lost: {}", migration_.session, error.message());
    control_worker_.post([this] { resolve_lost_reply(); });
  };
  auto open_pipe = [this]() -> Result<std::unique_ptr<hypervisor::BytePipe>> {
    auto channel = session_.open_libvirt();
    if (!channel) return std::move(channel).error();
    return std::unique_ptr<hypervisor::BytePipe>(std::make_unique<ChannelPipe>(std::move(*channel)));
  };
  auto gate = hypervisor::FinishGate::start(config_.run_dir, migration_.session, open_pipe, callbacks);
  if (!gate) return std::move(gate).error();
  std::shared_ptr<hypervisor::FinishGate> finish_gate = std::move(*gate);
  {
    std::lock_guard lock(mutex_);
    if (called_off_) return make_error(Errc::aborted, "the migration was called off before libvirt began it");
    libvirt_ = libvirt;
    gate_ = finish_gate;
  }
  FERRY_TRY(need_same_disks(*libvirt));  // before its memory is moved in vain
  hypervisor::MigrateRequest request;
  request.vm = migration_.vm;
  request.destination_uri = finish_gate->uri();
  const auto reply = session_.reply();
  const auto address = reply.memory_address.empty() ? session_.peer_address() : reply.memory_address;
  request.memory_uri = "tcp://" + (address.find(':') != std::string::npos ? "[" + address + "]" : address);
  request.listen_address = address;
  request.max_downtime_ms = static_cast<std::uint32_t>(migration_.max_downtime_ms);
  request.bandwidth_mib_s = migration_.bandwidth_bytes_per_s >> 20;
  request.undefine_source = true;
  auto ended = libvirt->migrate(request);
  {
    std::lock_guard lock(mutex_);
    libvirt_.reset();
    gate_.reset();
  }
  finish_gate->stop();
  return ended;
}

// Finish was forwarded and its answer never came: ask the destination whether the guest runs there, until it
// answers or the time is over. Guessing would mean two running guests or none.
void SourceHypervisor::resolve_lost_reply() {
  auto finish = gate();
  if (!finish) return;
  const auto deadline = std::chrono::steady_clock::now() + kResolveTime;
  while (std::chrono::steady_clock::now() < deadline) {
    auto there = hypervisor::Libvirt::connect(finish->uri());
    auto state = there ? (*there)->state(migration_.vm) : Result<hypervisor::DomainInfo>(there.error());
    if (state && state->state == hypervisor::DomainInfo::State::running) {
      auto answer = hypervisor::finished_domain(state->name, state->uuid, state->id);
      if (answer && finish->answer_finish(*answer)) return;
    } else if (state || state.error().code == Errc::not_found) {
      return not_started(make_error(Errc::failed, "the guest does not run on the destination"));
    }
    std::this_thread::sleep_for(kResolvePause);
  }
  not_started(make_error(Errc::peer_unreachable, "nobody could say whether the guest runs on the destination"));
}

void SourceHypervisor::not_started(Error why) {
  spdlog::warn("{}: {}", migration_.session, why.message());
  migration::SourceEvent event{T::guest_not_started};
  event.error = std::move(why);
  post_(std::move(event));
}

void SourceHypervisor::abort() {
  control_worker_.post([this] {
    {
      std::lock_guard lock(mutex_);
      called_off_ = true;
    }
    auto connection = libvirt();
    if (!connection) return;  // it has not begun and will not, or it is over
    // A job that is not there yet cannot be aborted: its Finish is turned away when it comes.
    auto finish = gate();
    if (finish) (void)finish->refuse_finish();
    auto done = connection->abort_migration(migration_.vm);
    if (done) return;
    spdlog::info("{}: {}", migration_.session, done.error().message());
    // Nothing moves that could be called off: libvirt's client waits for a destination that may hang.
    if (finish) finish->stop();
  });
}

void SourceHypervisor::release_finish() {
  control_worker_.post([this] {
    auto finish = gate();
    if (!finish) return;  // libvirt has given up meanwhile and says so
    auto released = finish->release_finish();
    // A link that breaks while Finish is on its way reports itself.
    if (!released && finish->state() == hypervisor::FinishState::held) not_started(std::move(released).error());
  });
}

void SourceHypervisor::refuse_finish() {
  control_worker_.post([this] {
    auto finish = gate();
    if (!finish) return;
    if (!finish->refuse_finish()) (void)finish->fail_client();  // it was forwarded, and came to nothing
  });
}

void SourceHypervisor::end_guest() {
  control_worker_.post([this] {
    auto connection = hypervisor::Libvirt::connect(config_.libvirt_uri);
    auto state = connection ? (*connection)->state(migration_.vm) : Result<hypervisor::DomainInfo>(connection.error());
    Status ended = ok_status();
    if (state && state->state != hypervisor::DomainInfo::State::shut_off) ended = (*connection)->destroy(migration_.vm);
    if (!state && state.error().code != Errc::not_found) ended = state.error();
    if (!ended) spdlog::error("{}: {}", migration_.session, ended.error().message());
    {
      std::lock_guard lock(mutex_);
      if (!running_) return post_({T::hypervisor_done});
    }
    auto finish = gate();
    if (finish && !finish->refuse_finish()) (void)finish->fail_client();
  });
}

// Asking libvirt may take its time, so it is done aside; the caller gets the last answer.
hypervisor::MemoryProgress SourceHypervisor::memory() {
  std::lock_guard lock(mutex_);
  if (running_ && !std::exchange(asking_, true)) {
    poll_worker_.post([this] {
      auto connection = libvirt();
      std::optional<hypervisor::MemoryProgress> progress;
      if (connection)
        if (auto answer = connection->memory_progress(migration_.vm)) progress = *answer;
      std::lock_guard answer_lock(mutex_);
      if (progress && progress->active) last_memory_ = *progress;
      asking_ = false;
    });
  }
  return last_memory_;
}

}  // namespace ferry::daemon
