// SPDX-License-Identifier: GPL-2.0-or-later
// The hypervisors of both hosts and libvirt's live migration between them, with its own mind: it may resume
// the source's guest whenever it likes, lose the reply of Finish, or fail to start the guest. What it
// promises to the brain is in migration/ports.h.
// Thread-safety: none.
#pragma once

#include <cstdint>

#include "migration/source.h"
#include "schedule.h"

namespace ferry::sim {

struct World;

class Libvirt {
 public:
  explicit Libvirt(World& world) : world_(world) {}

  // Calls of the session's Hypervisor port on host `from`.
  void start(unsigned from, std::uint32_t session);
  void abort(unsigned from, std::uint32_t session);
  void release(unsigned from, std::uint32_t session);
  void refuse(unsigned from, std::uint32_t session);
  void end_guest(unsigned from, std::uint32_t session);

  // What happens to it.
  void guest_stands_still(unsigned host);  // its last write has ended
  void guest_ended(unsigned host);
  void tunnel_broke();
  void daemon_died(unsigned host);
  void host_died(unsigned host);
  void resumes_itself();
  void lose_reply() { lose_reply_ = true; }
  void fail_start() { fail_start_ = true; }
  void calm() { lose_reply_ = fail_start_ = false; }

  void resume_if_paused(unsigned host);
  bool active() const { return stage_ != Stage::none; }

 private:
  enum class Stage : std::uint8_t { none, launching, copying, pausing, paused, held, forwarding, forwarded };

  void launch();
  void pause();
  void paused();
  void metadata_write();
  void hold();
  void forward();
  void arrives(std::uint32_t session);
  void ask_until_known();
  void ask(Time deadline);
  void completed();
  void not_started();
  void gives_up(Time after, bool destination_too);
  void drop_incoming(Time after);
  void over();
  void tell(Time delay, migration::SourceEventType type, const char* error);

  World& world_;
  Stage stage_ = Stage::none;
  unsigned from_ = 0;
  std::uint32_t session_ = 0;
  Life life_ = 0;
  unsigned metadata_writes_ = 0;
  bool lose_reply_ = false, fail_start_ = false;
};

}  // namespace ferry::sim
