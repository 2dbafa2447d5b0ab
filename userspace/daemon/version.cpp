// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/version.h"

namespace ferry::daemon {

Result<std::shared_ptr<wire::TlsContext>> load_tls(const Config& config) {
  wire::TlsFiles files;
  files.ca = config.pki_dir + "/ca-cert.pem";
  files.cert = config.pki_dir + "/server-cert.pem";
  files.key = config.pki_dir + "/server-key.pem";
  return wire::TlsContext::load(files);
}

}  // namespace ferry::daemon
