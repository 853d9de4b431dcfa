// A stream of XXH3-64 (seed 0, default secret) by the widest registers that the machine has; all give the same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sabot::rows {

class Xxh3 {
 public:
  Xxh3();

  void Update(const void* bytes, size_t size) { functions_.update(state_, bytes, size); }
  uint64_t Digest() const { return functions_.digest(state_); }

  /// One compilation of it.
  struct Functions {
    void (*reset)(void* state);
    void (*update)(void* state, const void* bytes, size_t size);
    uint64_t (*digest)(const void* state);
  };

 private:
  const Functions& functions_;
  alignas(64) std::byte state_[576];
};

/// For any machine.
extern const Xxh3::Functions kXxh3;

#if defined(__x86_64__)
/// For machines that have AVX2. Its source includes nothing that others include, too: what the linker keeps of an
/// inline function must run everywhere.
extern const Xxh3::Functions kXxh3Avx2;
#endif

}  // namespace sabot::rows
