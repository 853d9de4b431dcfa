// Count, mean and spread of numbers, in a form that several may be put together of exactly as one would have been.
#pragma once

#include <cmath>
#include <cstdint>

namespace sabot::operators {

/// Sums of powers of the numbers' distances from `about`, a number near their mean. What is kept is the difference from
/// the true mean, too, which a mean alone, rounded to 53 bits, would lose: of 10^9 and a little the little is left.
/// `Powers` is 2 for variances, or 4 for skew and kurtosis as well.
template <int Powers>
struct Moments {
  static_assert(Powers == 2 || Powers == 4);

  int64_t count;
  double about;
  double sums[Powers];

  void Add(double value) {
    if (count == 0) about = value;
    const double distance = value - about;
    double power = distance;
    for (double& sum : sums) {
      sum += power;
      power *= distance;
    }
    ++count;
    // The first value may be far out: `about` follows the mean, at a cost that is small for many values.
    if ((count & (count - 1)) == 0) Recentre();
  }

  void Merge(const Moments& other) {
    if (other.count == 0) return;
    if (count == 0) {
      *this = other;
      return;
    }
    Moments shifted = other;
    if (about != other.about) shifted.ShiftBy(about - other.about);
    count += other.count;
    for (int i = 0; i < Powers; ++i) sums[i] += shifted.sums[i];
    Recentre();
  }

  /// Moves `about` to the mean, so that later differences between sums are small.
  void Recentre() {
    const double mean = about + sums[0] / static_cast<double>(count);
    if (mean == about || !std::isfinite(mean) || !std::isfinite(sums[Powers - 1])) return;
    ShiftBy(mean - about);
    about = mean;
  }

 private:
  /// The sums as they are from `about` + `step`.
  void ShiftBy(double step) {
    const auto rows = static_cast<double>(count);
    if constexpr (Powers == 4) {
      sums[3] += step * (-4 * sums[2] + step * (6 * sums[1] + step * (-4 * sums[0] + step * rows)));
      sums[2] += step * (-3 * sums[1] + step * (3 * sums[0] - step * rows));
    }
    sums[1] += step * (-2 * sums[0] + step * rows);
    sums[0] -= step * rows;
  }
};

}  // namespace sabot::operators
