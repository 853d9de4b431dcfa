// Bytes copied past the cache: what is kept is not read again soon, and a store that goes through the cache reads the
// line first which it is about to write.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace sabot::spill {

/// As memcpy. Whoever hands the bytes to another thread calls EndStreams first.
inline void StreamBytes(uint8_t* to, const uint8_t* from, int64_t size) {
#if defined(__x86_64__)
  constexpr int64_t kStep = 64;
  const bool aligned = reinterpret_cast<uintptr_t>(to) % sizeof(__m128i) == 0;  // else such a store ends the process
  // Of less, most would be asked for again from a cache.
  const int64_t whole = size < 4096 || !aligned ? 0 : size - size % kStep;
  for (int64_t at = 0; at < whole; at += kStep) {
    __m128i line[4];
    std::memcpy(line, from + at, sizeof line);
    for (int i = 0; i < 4; ++i) _mm_stream_si128(reinterpret_cast<__m128i*>(to + at) + i, line[i]);
  }
#else
  constexpr int64_t whole = 0;
#endif
  if (size > whole) std::memcpy(to + whole, from + whole, static_cast<size_t>(size - whole));
}

/// Streamed bytes are there for all before whatever is stored next.
inline void EndStreams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace sabot::spill
