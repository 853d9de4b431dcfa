// Names as numbers: a bounded table that forgets what has not been used for longest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sabot::slots {

/// Safe from any thread. A serial names one name for ever; its place is another's once it is forgotten.
class NameTable {
 public:
  struct Entry {
    uint32_t serial = 0;  // from 1; 0: no entry
    uint32_t place = 0;   // below the capacity
    std::string name;
  };

  explicit NameTable(size_t capacity) : capacity_(capacity) {}

  /// The entry of `name`, cut to kNameBytesMax, now the latest used; the empty name has none.
  Entry Intern(std::string_view name);
  /// Every entry that is kept, by place.
  std::vector<Entry> entries() const;

  static constexpr size_t kNameBytesMax = 256;

 private:
  size_t PlaceForNew();  // under mutex_

  const size_t capacity_;
  mutable std::mutex mutex_;
  uint32_t last_serial_ = 0;  // guarded by mutex_, as all that follows
  uint64_t uses_ = 0;
  std::vector<Entry> entries_;
  std::vector<uint64_t> used_;  // by place: the count of uses when it was last used
  std::unordered_map<std::string, size_t> place_of_;
};

}  // namespace sabot::slots
