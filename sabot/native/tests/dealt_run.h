// Runs that nobody runs: the fair queue's tests only deal them out.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "sabot/native/slots/run.h"

namespace sabot::slots {

class DealtRun final : public Run {
 public:
  DealtRun(size_t items, Source source, bool narrow) : items_(items), source_(source), narrow_(narrow) {}
  size_t item_count() const noexcept override { return items_; }
  Source source_of(size_t) const noexcept override { return source_; }
  bool starts_narrow() const noexcept override { return narrow_; }
  void RunItem(size_t, int, int64_t) noexcept override {}
  void SkipItem(size_t) noexcept override {}
  void Finished() noexcept override {}

 private:
  const size_t items_;
  const Source source_;
  const bool narrow_;
};

inline Ticket OpenRun(size_t items, const JobShare& share, Source source = Source::kLocal, bool narrow = false) {
  auto run = std::make_shared<DealtRun>(items, source, narrow);
  EXPECT_TRUE(Claims::Open(*run, share));
  return run;
}

}  // namespace sabot::slots
