#include "sabot/native/slots/name_table.h"

#include <algorithm>

namespace sabot::slots {
namespace {

/// At most kNameBytesMax bytes that end between two characters of UTF-8.
std::string_view Cut(std::string_view name) {
  if (name.size() <= NameTable::kNameBytesMax) return name;
  size_t end = NameTable::kNameBytesMax;
  while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0) == 0x80) --end;
  return name.substr(0, end);
}

}  // namespace

NameTable::Entry NameTable::Intern(std::string_view name) {
  if (name.empty()) return {};
  std::string cut(Cut(name));
  std::lock_guard lock(mutex_);
  const auto found = place_of_.find(cut);
  if (found != place_of_.end()) {
    used_[found->second] = ++uses_;
    return entries_[found->second];
  }
  const size_t place = PlaceForNew();
  if (++last_serial_ == 0) ++last_serial_;
  entries_[place] = {last_serial_, static_cast<uint32_t>(place), cut};
  used_[place] = ++uses_;
  place_of_.emplace(std::move(cut), place);
  return entries_[place];
}

size_t NameTable::PlaceForNew() {
  if (entries_.size() < capacity_) {
    entries_.emplace_back();
    used_.push_back(0);
    return entries_.size() - 1;
  }
  const auto oldest = std::min_element(used_.begin(), used_.end());
  const auto place = static_cast<size_t>(oldest - used_.begin());
  place_of_.erase(entries_[place].name);
  return place;
}

std::vector<NameTable::Entry> NameTable::entries() const {
  std::lock_guard lock(mutex_);
  return entries_;
}

}  // namespace sabot::slots
