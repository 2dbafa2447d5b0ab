// SPDX-License-Identifier: GPL-2.0-or-later
#include "follow.h"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <thread>

#include "base/fd.h"
#include "client.h"
#include "report.h"

namespace ferry::ctl {
namespace {

using namespace std::chrono_literals;

sigset_t served_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&set, number);
  return set;
}

}  // namespace

void hold_signals() {
  const sigset_t set = served_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

class Follower::Impl {
 public:
  Impl(FollowOptions options, Progress& progress)
      : options_(std::move(options)),
        progress_(progress),
        reader_client_(options_.socket_path),
        abort_client_(options_.socket_path) {
    const sigset_t set = served_signals();
    signals_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }

  Followed run();

 private:
  struct News {
    std::optional<api::JobStatus> job;
    std::string note;
    std::optional<Error> lost;
  };

  void tell(News news);
  void read_stream(std::stop_token stop);
  bool read_once(std::stop_token stop, bool& heard, Status& status);
  void take_news();
  void take_signals();
  void interrupt(int number);
  void ask_abort();
  void stop_threads();

  const FollowOptions options_;
  Progress& progress_;
  Client reader_client_;
  Client abort_client_;
  Fd signals_;
  Fd wake_;

  std::mutex mutex_;                       // guards news_ and the flags below
  std::condition_variable_any changed_;
  std::deque<News> news_;
  bool reader_done_ = false;
  bool abort_done_ = true;

  Followed outcome_;
  bool ended_ = false;
  bool abort_asked_ = false;
  std::jthread reader_;
  std::jthread aborter_;
};

void Follower::Impl::tell(News news) {
  {
    std::lock_guard lock(mutex_);
    news_.push_back(std::move(news));
  }
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);  // a full counter wakes just as well
}

// True when the job has ended or nothing more can be learnt.
bool Follower::Impl::read_once(std::stop_token stop, bool& heard, Status& status) {
  bool final = false;
  std::optional<Error> wrong;
  status = reader_client_.events(options_.job_id, [&](const api::Json& line) {
    if (!line.is_object() || line.value("event", "") != "job") return !stop.stop_requested();
    auto job = api::decode_job(line.value("job", api::Json()));
    if (!job.ok()) {
      wrong = std::move(job).error();
      return false;
    }
    heard = true;
    final = api::is_final(job->state);
    tell({std::move(*job), "", std::nullopt});
    return !final && !stop.stop_requested();
  });
  if (wrong) tell({std::nullopt, "", wrong});
  return final || wrong.has_value() || stop.stop_requested();
}

void Follower::Impl::read_stream(std::stop_token stop) {
  auto give_up = std::chrono::steady_clock::time_point::max();
  for (;;) {
    bool heard = false;
    Status status = ok_status();
    if (read_once(stop, heard, status)) break;
    const auto now = std::chrono::steady_clock::now();
    if (heard || give_up == std::chrono::steady_clock::time_point::max()) {
      give_up = now + options_.patience;
      tell({std::nullopt, "lost the connection to ferryd, trying again", std::nullopt});
    }
    // A daemon that answers and knows no such job will not learn of it by waiting.
    const bool answered = !status.ok() && status.error().code != Errc::failed;
    if (answered || now >= give_up) {
      Error error = status.ok() ? make_error(Errc::failed, "ferryd ended the event stream")
                                : status.error();
      tell({std::nullopt, "", std::move(error)});
      break;
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, 200ms, [] { return false; });
    if (stop.stop_requested()) break;
  }
  std::lock_guard lock(mutex_);
  reader_done_ = true;
  changed_.notify_all();
}

void Follower::Impl::take_news() {
  uint64_t count = 0;
  (void)!::read(wake_.get(), &count, sizeof count);
  std::deque<News> news;
  {
    std::lock_guard lock(mutex_);
    news.swap(news_);
  }
  for (auto& item : news) {
    if (!item.note.empty()) progress_.note(item.note);
    if (item.lost) {
      outcome_.lost = std::move(item.lost);
      ended_ = true;
    }
    if (!item.job) continue;
    progress_.update(*item.job);
    ended_ = ended_ || api::is_final(item.job->state);
    outcome_.job = std::move(item.job);
  }
}

void Follower::Impl::take_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGUSR1)
      interrupt(static_cast<int>(info.ssi_signo));
    else if (outcome_.job)
      progress_.one_line(*outcome_.job);
  }
}

void Follower::Impl::interrupt(int number) {
  if (number == SIGINT && options_.abort_on_interrupt && !abort_asked_) {
    abort_asked_ = true;
    progress_.note("aborting; press Ctrl-C again to stop watching and leave the job to itself");
    ask_abort();
    return;
  }
  outcome_.signal = number;
  ended_ = true;
}

// In a thread of its own: the daemon may take its time, the second Ctrl-C must not.
void Follower::Impl::ask_abort() {
  {
    std::lock_guard lock(mutex_);
    abort_done_ = false;
  }
  aborter_ = std::jthread([this] {
    const auto done =
        abort_client_.post("/v1/jobs/" + options_.job_id + "/abort", api::Json::object());
    if (!done.ok()) tell({std::nullopt, "cannot abort: " + done.error().message(), std::nullopt});
    std::lock_guard lock(mutex_);
    abort_done_ = true;
    changed_.notify_all();
  });
}

void Follower::Impl::stop_threads() {
  reader_.request_stop();
  std::unique_lock lock(mutex_);
  // An abort that was asked for should still reach the daemon, within reason.
  changed_.wait_for(lock, 3s, [&] { return abort_done_; });
  // cancel() only breaks a call that has begun, hence the repetition.
  while (!abort_done_ || !reader_done_) {
    lock.unlock();
    if (!abort_done_) abort_client_.cancel();
    reader_client_.cancel();
    lock.lock();
    changed_.wait_for(lock, 20ms, [&] { return abort_done_ && reader_done_; });
  }
}

Followed Follower::Impl::run() {
  reader_ = std::jthread([this](std::stop_token stop) { read_stream(stop); });
  while (!ended_) {
    pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) break;
    if (fds[0].revents != 0) take_signals();
    if (fds[1].revents != 0) take_news();
  }
  progress_.close();
  stop_threads();
  return std::move(outcome_);
}

Follower::Follower(FollowOptions options, Progress& progress)
    : impl_(std::make_unique<Impl>(std::move(options), progress)) {}
Follower::~Follower() = default;
Followed Follower::run() { return impl_->run(); }

int follow_and_report(const Console& console, const FollowOptions& options, Progress& progress) {
  const Followed end = Follower(options, progress).run();
  if (end.job && api::is_final(end.job->state)) return report_end(console, *end.job);
  if (console.json && end.job) print_json(api::encode(*end.job));
  if (end.lost) {
    print_error(console, *end.lost);
    // The job may have gone on without us; claiming that the source owns the VM would be a guess.
    return print_error(console,
                       make_error(Errc::owner_unknown,
                                  fmt::format("how job {} ended is not known", options.job_id), 0,
                                  fmt::format("when ferryd runs again: migrate-ctl status {}",
                                              options.job_id)));
  }
  print_err(fmt::format("migrate-ctl: job {} goes on; watch it with: migrate-ctl status {} --watch",
                        options.job_id, options.job_id));
  return 128 + end.signal;
}

}  // namespace ferry::ctl
