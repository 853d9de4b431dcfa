// The names that have been ended, the latest few thousand of them, so that what comes late for one is refused at once
// instead of bringing it back. Not thread-safe.
#pragma once

#include <deque>
#include <string>
#include <unordered_set>

namespace sabot::shuffle {

/// "name" is "prefix" or lies below it.
bool IsBelow(const std::string& name, const std::string& prefix);

class EndedNames {
 public:
  void Remember(const std::string& name);
  /// `name`, or one above it ("job" above "job/3"), has been ended.
  bool Contains(const std::string& name) const;

 private:
  std::unordered_set<std::string> names_;
  std::deque<std::string> order_;
};

}  // namespace sabot::shuffle
