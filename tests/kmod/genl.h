// SPDX-License-Identifier: GPL-2.0-or-later
// The filter's netlink family by libnl's own calls, past the library under test. One thread.
#pragma once

#include <linux/ferry.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include "filter/tracker.h"

namespace ferry::kmod {

class NlSocket {
 public:
  NlSocket() : socket_(nl_socket_alloc()) { genl_connect(socket_); }
  NlSocket(const NlSocket&) = delete;
  NlSocket& operator=(const NlSocket&) = delete;
  ~NlSocket() { nl_socket_free(socket_); }
  nl_sock* get() { return socket_; }

 private:
  nl_sock* socket_;
};

inline int family_number() {
  NlSocket socket;
  return genl_ctrl_resolve(socket.get(), FERRY_GENL_NAME);
}

// One GET over a connected socket, as a dump (NLM_F_DUMP) or for one tracker; libnl's answer.
inline int ask(NlSocket& socket, int family, int flags, const filter::TrackerUuid* uuid) {
  nl_msg* message = nlmsg_alloc();
  genlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, flags, FERRY_CMD_GET, 1);
  if (uuid) nla_put(message, FERRY_A_UUID, uuid->size(), uuid->data());
  int code = nl_send_auto(socket.get(), message);
  nlmsg_free(message);
  return code < 0 ? code : nl_recvmsgs_default(socket.get());
}

inline int ask(int family, int flags, const filter::TrackerUuid* uuid) {
  NlSocket socket;
  return ask(socket, family, flags, uuid);
}

}  // namespace ferry::kmod
