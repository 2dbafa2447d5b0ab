// SPDX-License-Identifier: GPL-2.0-or-later
// Client: one conversation with ferryd over its unix socket. Errors of the daemon come back as
// they were sent; a daemon that is not there or not allowed gets a message with a way out.
// Thread-safety: one thread per Client, except cancel().
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "api/api_types.h"
#include "api/owner_types.h"
#include "base/result.h"

namespace httplib {
class Client;
}

namespace ferry::ctl {

class Client {
 public:
  explicit Client(std::string socket_path);
  ~Client();

  Result<api::Json> get(const std::string& path);
  Result<api::Json> post(const std::string& path, const api::Json& body);
  // Reads the event stream of one job until it ends or `on_event` returns false. Ok also when the
  // daemon ends it early: look at the last state.
  Status events(const std::string& job_id, const std::function<bool(const api::Json&)>& on_event);
  // Breaks a call that another thread is in.
  void cancel();

  // Of all VMs when the target is empty.
  Result<api::Json> owners(const api::OwnerTarget& target);
  Result<api::Json> definition(const api::OwnerTarget& target);
  Result<std::vector<api::JobStatus>> jobs();
  Result<api::JobStatus> job(const std::string& id);
  // By id, or by the name of a VM: its running job, else its newest.
  Result<api::JobStatus> find_job(const std::string& id_or_vm);
  const std::string& socket_path() const { return socket_path_; }

 private:
  Status probe() const;

  const std::string socket_path_;
  std::unique_ptr<httplib::Client> http_;
};

}  // namespace ferry::ctl
