// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/incoming_guest.h"

#include "hypervisor/libvirt.h"

namespace ferry::daemon {

Status end_incoming_guest(const Config& config, const std::string& vm, const std::string& definition) {
  auto libvirt = hypervisor::Libvirt::connect(config.libvirt_uri);
  if (!libvirt) return std::move(libvirt).error();
  auto state = (*libvirt)->state(vm);
  if (!state) {
    if (state.error().code == Errc::not_found) return ok_status();
    return std::move(state).error();
  }
  if (state->state == hypervisor::DomainInfo::State::shut_off) return ok_status();
  const auto coming = hypervisor::parse_domain_xml(definition);
  if (coming && coming->uuid != state->uuid) return make_error(Errc::busy, "here " + vm + " is another VM");
  if (state->state == hypervisor::DomainInfo::State::running)
    return make_error(Errc::busy, "the VM " + vm + " runs here");
  return (*libvirt)->destroy_incoming(vm);
}

}  // namespace ferry::daemon
