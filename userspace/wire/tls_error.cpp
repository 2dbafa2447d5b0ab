// SPDX-License-Identifier: GPL-2.0-or-later
#include "wire/tls_error.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <cerrno>

namespace ferry::wire {
namespace {

Error explain_certificate(const TlsFailure& f) {
  const std::string peer = "the certificate of " + f.where;
  const std::string why = X509_verify_cert_error_string(f.verify_result);
  switch (f.verify_result) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return make_error(Errc::permission, peer + " names another host (" + why + ")", 0,
                        "use the name that is in the certificate, or issue one with this name");
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return make_error(Errc::permission, peer + " is not valid now (" + why + ")", 0,
                        "renew it, and check the clocks of both hosts");
    case X509_V_ERR_INVALID_PURPOSE:
      return make_error(Errc::permission, peer + " does not fit its use (" + why + ")", 0,
                        "it has to allow both TLS server and TLS client authentication");
    default:
      return make_error(Errc::permission, peer + " is not signed by our CA (" + why + ")", 0,
                        "both hosts need certificates of the same CA, see ca-cert.pem");
  }
}

// OpenSSL numbers a received alert as this offset plus the alert's own number.
constexpr int kAlertOffset = SSL_AD_REASON_OFFSET;

bool is_alert(int reason) { return reason >= kAlertOffset && reason < kAlertOffset + 256; }

Error explain_alert(const TlsFailure& f, int alert) {
  const std::string said = SSL_alert_desc_string_long(alert);
  switch (alert) {
    case SSL_AD_UNKNOWN_CA:
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_CERTIFICATE_REQUIRED:
    case SSL_AD_ACCESS_DENIED:
    case SSL_AD_DECRYPT_ERROR:
      return make_error(Errc::peer_refused, f.where + " refused this host's certificate (" + said +
                        ")", 0, "it has to be signed by the CA the other host knows, be valid "
                        "now, and name this host");
    default:
      return make_error(Errc::peer_refused, f.where + " broke off " + f.doing + " (" + said + ")");
  }
}

Error lost(const TlsFailure& f, int sys) {
  if (!f.after_handshake)
    return make_error(Errc::peer_unreachable, f.where + " closed the connection during " + f.doing,
                      sys, "is it ferryd that listens there, and is its log silent about us?");
  return make_error(Errc::peer_unreachable, "the connection with " + f.where + " was lost", sys,
                    "the link was cut, or ferryd there has ended");
}

}  // namespace

Error explain_tls_error(const TlsFailure& f) {
  if (!f.after_handshake && f.verify_result != X509_V_OK && f.ssl_error == SSL_ERROR_SSL)
    return explain_certificate(f);
  if (f.ssl_error == SSL_ERROR_SYSCALL) return lost(f, f.sys);
  const int reason = ERR_GET_REASON(f.openssl_code);
  if (f.ssl_error == SSL_ERROR_SSL && ERR_GET_LIB(f.openssl_code) == ERR_LIB_SSL) {
    if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) return lost(f, 0);
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
      return make_error(Errc::permission, f.where + " showed no certificate");
    if (is_alert(reason)) return explain_alert(f, reason - kAlertOffset);
  }
  const char* text = ERR_reason_error_string(f.openssl_code);
  return make_error(Errc::protocol, f.doing + " with " + f.where + " failed: " +
                    (text != nullptr ? text : "no details"), 0,
                    f.after_handshake ? "" : "does the other side speak TLS 1.3?");
}

}  // namespace ferry::wire
