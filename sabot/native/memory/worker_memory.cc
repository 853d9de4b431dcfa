#include "sabot/native/memory/worker_memory.h"

#include <fstream>
#include <string>

namespace sabot::memory {
namespace {

/// Sum of the lines "Private_...: N kB".
int64_t PrivateBytes(int pid) {
  std::ifstream rollup("/proc/" + std::to_string(pid) + "/smaps_rollup");
  int64_t bytes = 0;
  for (std::string line; std::getline(rollup, line);) {
    if (!line.starts_with("Private_")) continue;
    const size_t colon = line.find(':');
    if (colon != std::string::npos) bytes += std::strtoll(line.c_str() + colon + 1, nullptr, 10) * 1024;
  }
  return bytes;
}

}  // namespace

int64_t ChildrenPrivateBytes(int nursery) {
  const std::string id = std::to_string(nursery);
  std::ifstream children("/proc/" + id + "/task/" + id + "/children");
  int64_t bytes = 0;
  for (int child = 0; children >> child;) bytes += PrivateBytes(child);
  return bytes;
}

}  // namespace sabot::memory
