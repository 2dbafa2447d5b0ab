// SPDX-License-Identifier: GPL-2.0-or-later
#include <libxml/parser.h>
#include <libxml/tree.h>

#include <cstdlib>
#include <memory>
#include <set>
#include <string_view>

#include "hypervisor/domain.h"

namespace ferry::hypervisor {
namespace {

struct FreeDocument {
  void operator()(xmlDoc* document) const { xmlFreeDoc(document); }
};
using Document = std::unique_ptr<xmlDoc, FreeDocument>;
struct FreeXml {
  void operator()(xmlChar* text) const { xmlFree(text); }
};
using XmlText = std::unique_ptr<xmlChar, FreeXml>;

const xmlChar* xml(const char* text) { return reinterpret_cast<const xmlChar*>(text); }
std::string to_string(const XmlText& text) {
  return text ? reinterpret_cast<const char*>(text.get()) : "";
}

bool is_element(const xmlNode* node, std::string_view name) {
  return node->type == XML_ELEMENT_NODE && name == reinterpret_cast<const char*>(node->name);
}

xmlNode* child(const xmlNode* parent, std::string_view name) {
  if (!parent) return nullptr;
  for (xmlNode* node = parent->children; node; node = node->next)
    if (is_element(node, name)) return node;
  return nullptr;
}

std::string attribute(xmlNode* node, const char* name) {
  return node ? to_string(XmlText(xmlGetNoNsProp(node, xml(name)))) : "";
}

std::string text(xmlNode* node) {
  return node ? to_string(XmlText(xmlNodeGetContent(node))) : "";
}

Result<Document> parse(const std::string& source) {
  // Libvirt's XML needs neither entities nor the network; huge documents stay refused.
  Document document(xmlReadMemory(source.data(), static_cast<int>(source.size()), "domain.xml",
                                  nullptr, XML_PARSE_NONET | XML_PARSE_NOERROR |
                                               XML_PARSE_NOWARNING));
  if (!document) return make_error(Errc::protocol, "cannot parse libvirt's domain XML");
  xmlNode* root = xmlDocGetRootElement(document.get());
  if (!root || !is_element(root, "domain"))
    return make_error(Errc::protocol, "libvirt's domain XML has no <domain> element");
  return document;
}

// The attribute of <source> that names what is behind a disk, by the disk's type.
const char* source_attribute(const std::string& type) {
  if (type == "block") return "dev";
  if (type == "file") return "file";
  if (type == "dir") return "dir";
  return "name";
}

DomainDisk read_disk(xmlNode* node) {
  DomainDisk disk;
  disk.type = attribute(node, "type");
  disk.device = attribute(node, "device");
  if (disk.device.empty()) disk.device = "disk";
  disk.target = attribute(child(node, "target"), "dev");
  disk.path = attribute(child(node, "source"), source_attribute(disk.type));
  disk.serial = text(child(node, "serial"));
  disk.cache = attribute(child(node, "driver"), "cache");
  disk.format = attribute(child(node, "driver"), "type");
  disk.readonly = child(node, "readonly") != nullptr;
  disk.shareable = child(node, "shareable") != nullptr;
  xmlNode* backing = child(node, "backingStore");
  disk.has_backing = backing && child(backing, "source");
  disk.has_job = child(node, "mirror") != nullptr;
  return disk;
}

void read_devices(const xmlNode* devices, DomainInfo& domain) {
  for (xmlNode* node = devices ? devices->children : nullptr; node; node = node->next) {
    if (is_element(node, "disk")) {
      DomainDisk disk = read_disk(node);
      if (child(node, "source")) domain.disks.push_back(std::move(disk));
    } else if (is_element(node, "hostdev")) {
      domain.host_bound.push_back("host device (" + attribute(node, "type") + ")");
    } else if (is_element(node, "interface") && attribute(node, "type") == "hostdev") {
      domain.host_bound.push_back("network interface passed through from the host");
    } else if (is_element(node, "filesystem")) {
      domain.host_bound.push_back("host directory shared with the guest (" +
                                  attribute(child(node, "target"), "dir") + ")");
    }
  }
}

uint64_t memory_kib_of(xmlNode* root) {
  xmlNode* node = child(root, "memory");
  const uint64_t amount = std::strtoull(text(node).c_str(), nullptr, 10);
  const std::string unit = attribute(node, "unit");
  if (unit == "b" || unit == "bytes") return amount >> 10;
  if (unit == "M" || unit == "MiB") return amount << 10;
  if (unit == "G" || unit == "GiB") return amount << 20;
  return amount;  // libvirt itself always writes KiB
}

}  // namespace

Result<DomainInfo> parse_domain_xml(const std::string& source) {
  auto document = parse(source);
  if (!document.ok()) return document.error();
  xmlNode* root = xmlDocGetRootElement(document->get());
  DomainInfo domain;
  domain.name = text(child(root, "name"));
  domain.uuid = text(child(root, "uuid"));
  domain.memory_kib = memory_kib_of(root);
  read_devices(child(root, "devices"), domain);
  return domain;
}

Result<std::string> replace_disk_paths(const std::string& source,
                                       const std::map<std::string, std::string>& paths) {
  auto document = parse(source);
  if (!document.ok()) return document.error();
  xmlNode* devices = child(xmlDocGetRootElement(document->get()), "devices");
  std::set<std::string> replaced;
  for (xmlNode* node = devices ? devices->children : nullptr; node; node = node->next) {
    if (!is_element(node, "disk")) continue;
    const char* where = source_attribute(attribute(node, "type"));
    xmlNode* source_node = child(node, "source");
    auto found = paths.find(attribute(source_node, where));
    if (found == paths.end()) continue;
    xmlSetProp(source_node, xml(where), xml(found->second.c_str()));
    replaced.insert(found->first);
  }
  for (const auto& [path, unused] : paths)
    if (!replaced.contains(path))
      return make_error(Errc::not_found, "no disk of the VM has the path " + path);
  // Only the element: libvirt wants no XML declaration in a migration parameter.
  std::unique_ptr<xmlBuffer, decltype(&xmlBufferFree)> buffer(xmlBufferCreate(), xmlBufferFree);
  if (!buffer || xmlNodeDump(buffer.get(), document->get(),
                             xmlDocGetRootElement(document->get()), 0, 0) < 0)
    return make_error(Errc::failed, "cannot write the destination's domain XML");
  return std::string(reinterpret_cast<const char*>(xmlBufferContent(buffer.get())));
}

}  // namespace ferry::hypervisor
