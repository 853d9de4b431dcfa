#include "sabot/native/shuffle/ended_names.h"

namespace sabot::shuffle {
namespace {

constexpr size_t kNamesMax = 4096;  // beyond these, what comes late waits out its deadline

}  // namespace

bool IsBelow(const std::string& name, const std::string& prefix) {
  return name == prefix || (name.size() > prefix.size() && name.starts_with(prefix) && name[prefix.size()] == '/');
}

void EndedNames::Remember(const std::string& name) {
  if (!names_.insert(name).second) return;
  order_.push_back(name);
  if (order_.size() > kNamesMax) {
    names_.erase(order_.front());
    order_.pop_front();
  }
}

bool EndedNames::Contains(const std::string& name) const {
  for (size_t length = name.size(); length != std::string::npos; length = name.rfind('/', length - 1)) {
    if (names_.contains(name.substr(0, length))) return true;
    if (length == 0) break;
  }
  return false;
}

}  // namespace sabot::shuffle
