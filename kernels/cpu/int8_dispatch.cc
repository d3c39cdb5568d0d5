// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "kernels/cpu/int8_matmul.h"

namespace fairlead {

absl::Span<const Int8Kernels* const> SupportedInt8Kernels() {
  static const auto* const kernels = [] {
    auto* list = new std::vector<const Int8Kernels*>;
#if defined(__x86_64__)
    for (const Int8Kernels* candidate : {&kInt8Amx, &kInt8Avx512Vnni, &kInt8Avx2}) {
      if (candidate->supported()) list->push_back(candidate);
    }
#elif defined(__aarch64__)
    if (kInt8Neon.supported()) list->push_back(&kInt8Neon);
#endif
    return list;
  }();
  return *kernels;
}

}  // namespace fairlead
