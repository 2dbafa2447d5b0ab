// SPDX-License-Identifier: GPL-2.0-or-later
// ferryd's settings: ferry.conf (INI, ferry.conf(5)) and the command line, read with one option table.
#pragma once

#include <cstdint>
#include <string>

#include "api/api_types.h"
#include "base/result.h"
#include "filter/granularity.h"

namespace ferry::daemon {

struct Config {
  std::string host_name;                       // how this host calls itself to its peers
  std::string listen = "0.0.0.0";              // address of the peer link, only with keys
  std::uint16_t port = api::kPeerPortDefault;
  std::string pki_dir = "/etc/ferry/pki";
  std::string socket = api::kSocketPathDefault;
  std::string run_dir = "/run/ferry";
  std::string state_dir = "/var/lib/ferry";
  std::string libvirt_uri = "qemu:///system";
  std::string libvirt_socket = "/run/libvirt/libvirt-sock";
  std::string memory_address;                  // where peers' hypervisors send memory; empty: the peer link's
  unsigned streams = 4;                        // data streams of one job
  std::uint64_t map_memory_mib = filter::kMapMemoryDefaultBytes >> 20;  // for the dirty maps of one volume
  bool verbose = false;
  std::uint64_t map_memory_bytes() const { return map_memory_mib << 20; }
};


struct CommandLine {
  Config config;
  bool show_help = false;
  bool show_version = false;
  bool bar_volumes = false;  // close what other hosts own, and end
  std::string help;
};
// Errors name the file, the line's option and what is wrong with it.
Result<CommandLine> parse_command_line(int argc, const char* const* argv);

}  // namespace ferry::daemon
