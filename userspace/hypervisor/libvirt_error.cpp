// SPDX-License-Identifier: GPL-2.0-or-later
#include "hypervisor/libvirt_error.h"

#include <libvirt/virterror.h>

#include <array>
#include <string_view>

namespace ferry::hypervisor {
namespace {

Errc kind_of(const virError& error) {
  switch (error.code) {
    case VIR_ERR_NO_DOMAIN:
      return Errc::not_found;
    case VIR_ERR_AUTH_FAILED:
    case VIR_ERR_AUTH_CANCELLED:
    case VIR_ERR_AUTH_UNAVAILABLE:
    case VIR_ERR_ACCESS_DENIED:
    case VIR_ERR_OPERATION_DENIED:
      return Errc::permission;
    case VIR_ERR_DOM_EXIST:
    case VIR_ERR_OPERATION_TIMEOUT:  // another job holds the VM
    case VIR_ERR_RESOURCE_BUSY:
      return Errc::busy;
    case VIR_ERR_OPERATION_ABORTED:
      return Errc::aborted;
    case VIR_ERR_NO_SUPPORT:
    case VIR_ERR_CONFIG_UNSUPPORTED:
    case VIR_ERR_OPERATION_UNSUPPORTED:
    case VIR_ERR_ARGUMENT_UNSUPPORTED:
    case VIR_ERR_MIGRATE_UNSAFE:
    case VIR_ERR_CPU_INCOMPATIBLE:
      return Errc::unsupported;
    case VIR_ERR_NO_CONNECT:
      return Errc::not_found;
    default:
      return error.domain == VIR_FROM_RPC ? Errc::peer_unreachable : Errc::failed;
  }
}

struct Advice {
  std::string_view part;  // of libvirt's message
  std::string_view hint;
};

constexpr std::array kAdvice{
    Advice{"Failed to connect socket", "is libvirt's daemon running? systemctl start libvirtd"},
    Advice{"to the same host", "both hosts have the same UUID: set host_uuid in libvirtd.conf"},
    Advice{"Cannot access storage file", "does the volume exist on the destination?"},
    Advice{"Network not found", "define the VM's network on the destination"},
    Advice{"Cannot get interface MTU", "create the VM's bridge on the destination"},
    Advice{"state change lock", "another libvirt job works on this VM: virsh domjobinfo"},
    Advice{"cache=none", "set cache='none' in the disk's <driver>"},
    Advice{"unable to connect to server", "is the destination's migration port range open?"},
    Advice{"does not support migration", "see libvirt's log on both hosts"},
};

std::string hint_for(const virError& error, std::string_view message) {
  for (const auto& advice : kAdvice)
    if (message.find(advice.part) != std::string_view::npos) return std::string(advice.hint);
  if (error.code == VIR_ERR_CPU_INCOMPATIBLE)
    return "give the VM a CPU model that both hosts have";
  if (error.code == VIR_ERR_NO_DOMAIN) return "list the VMs: virsh list --all";
  return {};
}

}  // namespace

Error libvirt_error(const std::string& what) {
  const virError* error = virGetLastError();
  if (!error || error->code == VIR_ERR_OK) return make_error(Errc::failed, what);
  const std::string message = error->message ? error->message : "unknown error";
  return make_error(kind_of(*error), what + ": " + message, 0, hint_for(*error, message));
}

}  // namespace ferry::hypervisor
