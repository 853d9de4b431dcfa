#include "sabot/native/rows/xxh3.h"

#define XXH_INLINE_ALL
#include <arrow/vendored/xxhash.h>

#include "sabot/native/rows/wide_loops.h"

namespace sabot::rows {

static_assert(sizeof(XXH3_state_t) == 576 && alignof(XXH3_state_t) == 64);

const Xxh3::Functions kXxh3{
    [](void* state) { (void)XXH3_64bits_reset(static_cast<XXH3_state_t*>(state)); },
    [](void* state, const void* bytes, size_t size) {
      (void)XXH3_64bits_update(static_cast<XXH3_state_t*>(state), bytes, size);
    },
    [](const void* state) -> uint64_t { return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state)); },
};

namespace {

const Xxh3::Functions& Widest() {
#if defined(__x86_64__)
  if (HasAvx2()) return kXxh3Avx2;
#endif
  return kXxh3;
}

}  // namespace

Xxh3::Xxh3() : functions_(Widest()) { functions_.reset(state_); }

}  // namespace sabot::rows
