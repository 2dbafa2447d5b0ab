// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/doctor.h"

#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/peer_link.h"
#include "daemon/version.h"
#include "filter/tracker.h"
#include "io/block_queue.h"

namespace ferry::daemon {
namespace {

api::Check good(std::string name, std::string detail) { return {std::move(name), true, std::move(detail), {}, {}}; }

api::Check bad(std::string name, const Error& error) {
  std::string detail = error.what;
  if (error.sys != 0) detail = make_error(error.code, error.what, error.sys).message();
  return {std::move(name), false, std::move(detail), error.hint, error.code};
}

api::Check check_module() {
  auto version = filter::module_version();
  if (!version) return bad("kernel module", version.error());
  const auto text = fmt::format("dm-ferry {}.{}", version->abi_major, version->abi_minor);
  if (!version->fits())
    return bad("kernel module", make_error(Errc::unsupported,
                                           fmt::format("{} is loaded, this daemon needs {}.{}", text, FERRY_ABI_MAJOR,
                                                       FERRY_ABI_MINOR),
                                           0, "install the module of this version and reload it"));
  return good("kernel module", text);
}

api::Check check_rights() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0 || !(data[0].effective & (1u << CAP_SYS_ADMIN)))
    return bad("rights", make_error(Errc::permission, "ferryd lacks CAP_SYS_ADMIN", 0, "run it as root, as its unit does"));
  return good("rights", "CAP_SYS_ADMIN");
}

api::Check check_keys(const Config& config) {
  auto tls = load_tls(config);
  if (!tls) return bad("keys", tls.error());
  return good("keys", config.pki_dir);
}

api::Check check_peer(const Config& config, const std::string& text) {
  const std::string name = "peer " + text;
  auto peer = api::parse_host_port(text);
  if (!peer) return bad(name, peer.error());
  Welcome welcome;
  auto channel = open_connection(config, *peer, Purpose::probe, "", &welcome);
  if (!channel) return bad(name, channel.error());
  return good(name, fmt::format("{}, ferryd {}, protocol {}", welcome.host, welcome.version, welcome.protocol));
}

}  // namespace

std::vector<api::Check> examine(const Config& config, const Result<std::shared_ptr<hypervisor::Libvirt>>& libvirt,
                                const std::optional<std::string>& peer) {
  std::vector<api::Check> checks;
  checks.push_back(check_module());
  checks.push_back(check_rights());
  checks.push_back(libvirt ? good("libvirt", config.libvirt_uri) : bad("libvirt", libvirt.error()));
  checks.push_back(check_keys(config));
  // Without io_uring the copy still works, only slower.
  auto uring = probe_io_uring();
  checks.push_back(good("io_uring", uring ? "available" : uring.error().message() + ": plain reads and writes are used"));
  if (peer) checks.push_back(check_peer(config, *peer));
  return checks;
}

}  // namespace ferry::daemon
