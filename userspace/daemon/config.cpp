// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/config.h"

#include <unistd.h>

#include <boost/program_options.hpp>
#include <fstream>
#include <sstream>

namespace ferry::daemon {
namespace po = boost::program_options;

namespace {

constexpr const char* kDefaultFile = "/etc/ferry/ferry.conf";

std::string own_host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return "localhost";
  return name;
}

po::options_description settings(Config& c) {
  po::options_description d("Settings (command line or ferry.conf)");
  d.add_options()
      ("host-name", po::value(&c.host_name)->default_value(own_host_name()), "name of this host towards its peers")
      ("listen", po::value(&c.listen)->default_value(c.listen), "address of the peer link")
      ("port", po::value(&c.port)->default_value(c.port), "TCP port of the peer link")
      ("pki-dir", po::value(&c.pki_dir)->default_value(c.pki_dir),
       "ca-cert.pem, server-cert.pem and server-key.pem; without them no network address is opened")
      ("socket", po::value(&c.socket)->default_value(c.socket), "unix socket of the admin API")
      ("run-dir", po::value(&c.run_dir)->default_value(c.run_dir), "directory for sockets of running jobs")
      ("state-dir", po::value(&c.state_dir)->default_value(c.state_dir), "directory for files of running jobs")
      ("libvirt-uri", po::value(&c.libvirt_uri)->default_value(c.libvirt_uri), "the local hypervisor")
      ("libvirt-socket", po::value(&c.libvirt_socket)->default_value(c.libvirt_socket),
       "socket of the local libvirt daemon, for incoming migrations")
      ("memory-address", po::value(&c.memory_address)->default_value(c.memory_address),
       "address to which peers' hypervisors send memory (default: where the peer link came in)")
      ("map-memory", po::value(&c.map_memory_mib)->default_value(c.map_memory_mib),
       "MiB for the dirty maps of one volume; larger volumes are tracked in larger blocks")
      ("streams", po::value(&c.streams)->default_value(c.streams), "data streams of one job, 1 to 16");
  return d;
}

}  // namespace

Result<CommandLine> parse_command_line(int argc, const char* const* argv) {
  CommandLine line;
  std::string file;
  po::options_description general("ferryd [options]");
  general.add_options()
      ("help,h", po::bool_switch(&line.show_help), "this text")
      ("version", po::bool_switch(&line.show_version), "version and exit")
      ("bar-volumes", po::bool_switch(&line.bar_volumes),
       "close the volumes that other hosts own, and exit: 0 when nobody can write to them, else 1")
      ("verbose,v", po::bool_switch(&line.config.verbose), "log debug lines, too")
      ("config", po::value(&file)->default_value(kDefaultFile), "settings file");
  const auto both = settings(line.config);
  po::options_description all;
  all.add(general).add(both);
  std::ostringstream help;
  help << all;
  line.help = help.str();
  try {
    po::variables_map values;
    po::store(po::command_line_parser(argc, argv).options(all).run(), values);
    const std::string name = values["config"].as<std::string>();
    std::ifstream in(name);
    if (in) {
      po::store(po::parse_config_file(in, both), values);
    } else if (!values["config"].defaulted()) {
      return make_error(Errc::not_found, "cannot read the settings file " + name, errno);
    }
    po::notify(values);
  } catch (const po::error& e) {
    return make_error(Errc::usage, e.what(), 0, "see ferryd --help and ferry.conf(5)");
  }
  if (line.config.streams < 1 || line.config.streams > api::kStreamsMax)
    return make_error(Errc::usage, "streams must be 1 to 16");
  constexpr std::uint64_t kMapMemoryMaxMib = 1u << 20;
  if (line.config.map_memory_mib < 1 || line.config.map_memory_mib > kMapMemoryMaxMib)
    return make_error(Errc::usage, "map-memory must be 1 to " + std::to_string(kMapMemoryMaxMib) + " (MiB)");
  return line;
}

}  // namespace ferry::daemon
