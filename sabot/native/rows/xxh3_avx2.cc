// Compiled for AVX2: see kXxh3Avx2.
#if defined(__x86_64__)

#include "sabot/native/rows/xxh3.h"

#define XXH_INLINE_ALL
#include <arrow/vendored/xxhash.h>

namespace sabot::rows {

static_assert(XXH_VECTOR == XXH_AVX2, "this file is to be compiled with -mavx2");
static_assert(sizeof(XXH3_state_t) == 576 && alignof(XXH3_state_t) == 64);

const Xxh3::Functions kXxh3Avx2{
    [](void* state) { (void)XXH3_64bits_reset(static_cast<XXH3_state_t*>(state)); },
    [](void* state, const void* bytes, size_t size) {
      (void)XXH3_64bits_update(static_cast<XXH3_state_t*>(state), bytes, size);
    },
    [](const void* state) -> uint64_t { return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state)); },
};

}  // namespace sabot::rows

#endif
