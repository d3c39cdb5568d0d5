// SPDX-License-Identifier: Apache-2.0
// Register-only loops of x86's multiply-add instructions. Each function is compiled for its own
// instruction set and called only where the CPU has it. An empty asm that claims to change an
// operand keeps the compiler from moving a multiplication out of the loop, one that reads the sums
// keeps it from dropping them; they cost nothing.
#include "bench/limits/limits.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <iterator>

namespace fairlead::bench {
namespace {

// Independent sums: the latency of a multiply-add (4-6 cycles) times two ports, rounded up.
constexpr int kSums = 12;

// --- f32 ---
__attribute__((target("sse2"))) double FmaSse2(int steps) {
  __m128 sum[kSums] = {};
  __m128 x = _mm_set1_ps(1e-3f);
  const __m128 y = _mm_set1_ps(1.001f);
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < kSums; ++i) {
      asm volatile("" : "+x"(x));
      sum[i] = _mm_add_ps(sum[i], _mm_mul_ps(x, y));
    }
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return static_cast<double>(steps) * kSums * 4 * 2;
}

__attribute__((target("avx2,fma"))) double FmaAvx2(int steps) {
  __m256 sum[kSums] = {};
  const __m256 x = _mm256_set1_ps(1e-3f), y = _mm256_set1_ps(1.001f);
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < kSums; ++i) sum[i] = _mm256_fmadd_ps(x, y, sum[i]);
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return static_cast<double>(steps) * kSums * 8 * 2;
}

__attribute__((target("avx512f"))) double FmaAvx512(int steps) {
  __m512 sum[kSums] = {};
  const __m512 x = _mm512_set1_ps(1e-3f), y = _mm512_set1_ps(1.001f);
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < kSums; ++i) sum[i] = _mm512_fmadd_ps(x, y, sum[i]);
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return static_cast<double>(steps) * kSums * 16 * 2;
}

// --- int8, u8 x s8 ---
// Widened to int32 at once.
__attribute__((target("avx2"))) double DotAvx2(int steps) {
  __m256i sum[kSums] = {};
  __m256i x = _mm256_set1_epi8(3);
  const __m256i y = _mm256_set1_epi8(-2), ones = _mm256_set1_epi16(1);
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < kSums; ++i) {
      asm volatile("" : "+x"(x));
      sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones));
    }
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return static_cast<double>(steps) * kSums * 32 * 2;
}

// Products of a block of 32 summed in int16 first, which up to 5 bits of weight allow: eight
// multiplications a widening.
__attribute__((target("avx2"))) double DotInt16SumsAvx2(int steps) {
  __m256i sum[4] = {};
  __m256i x = _mm256_set1_epi8(3);
  const __m256i y = _mm256_set1_epi8(-2), ones = _mm256_set1_epi16(1);
  for (int step = 0; step < steps; ++step) {
    for (__m256i& total : sum) {
      __m256i block = _mm256_maddubs_epi16(x, y);
      for (int i = 1; i < 8; ++i) {
        asm volatile("" : "+x"(x));
        block = _mm256_add_epi16(block, _mm256_maddubs_epi16(x, y));
      }
      total = _mm256_add_epi32(total, _mm256_madd_epi16(block, ones));
    }
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return static_cast<double>(steps) * 4 * 8 * 32 * 2;
}

__attribute__((target("avx2,avxvnni"))) double DotAvxVnni(int steps) {
  __m256i sum[kSums] = {};
  const __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(-2);
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < kSums; ++i) sum[i] = _mm256_dpbusd_avx_epi32(sum[i], x, y);
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return static_cast<double>(steps) * kSums * 32 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) double DotAvx512Vnni(int steps) {
  __m512i sum[kSums] = {};
  const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(-2);
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < kSums; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], x, y);
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return static_cast<double>(steps) * kSums * 64 * 2;
}

// --- bf16 ---
__attribute__((target("avx512f,avx512bf16"))) double DotAvx512Bf16(int steps) {
  __m512 sum[kSums] = {};
  const __m512 ones = _mm512_set1_ps(1);
  const __m512bh x = _mm512_cvtne2ps_pbh(ones, ones), y = x;
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < kSums; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], x, y);
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return static_cast<double>(steps) * kSums * 32 * 2;
}

// --- tiles ---
constexpr int kTileRows = 16, kTileBytes = 64;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};

// Linux gives a process the tiles when it asks for them: arch_prctl(ARCH_REQ_XCOMP_PERM,
// XFEATURE_XTILEDATA), Documentation/arch/x86/xstate.rst.
bool MayUseTiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool may = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return may;
}

__attribute__((target("amx-tile"))) void ConfigureTiles() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.bytes_per_row[i] = kTileBytes;
    config.rows[i] = kTileRows;
  }
  // GCC 12 believes that the instruction reads 8 bytes, and would drop the rest.
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
  alignas(64) static const uint8_t kZeros[kTileRows * kTileBytes] = {};
  _tile_loadd(4, kZeros, kTileBytes);
  _tile_loadd(5, kZeros, kTileBytes);
  _tile_loadd(6, kZeros, kTileBytes);
  _tile_loadd(7, kZeros, kTileBytes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

__attribute__((target("amx-tile,amx-int8"))) double TileInt8(int steps) {
  for (int step = 0; step < steps; ++step) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  return static_cast<double>(steps) * 4 * kTileRows * kTileRows * kTileBytes * 2;
}

__attribute__((target("amx-tile,amx-bf16"))) double TileBf16(int steps) {
  for (int step = 0; step < steps; ++step) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  return static_cast<double>(steps) * 4 * kTileRows * kTileRows * kTileBytes / 2 * 2;
}

bool HasSse2() { return true; }
bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool HasAvx512() { return __builtin_cpu_supports("avx512f"); }
bool HasAvxVnni() { return HasAvx2() && __builtin_cpu_supports("avxvnni"); }
bool HasAvx512Vnni() { return HasAvx512() && __builtin_cpu_supports("avx512vnni"); }
bool HasAvx512Bf16() { return HasAvx512() && __builtin_cpu_supports("avx512bf16"); }
bool HasTileInt8() { return __builtin_cpu_supports("amx-int8") && MayUseTiles(); }
bool HasTileBf16() { return __builtin_cpu_supports("amx-bf16") && MayUseTiles(); }

constexpr ComputeLoop kLoops[] = {
    {"f32_fma", "sse2", "GFLOP/s", HasSse2, nullptr, FmaSse2},
    {"f32_fma", "avx2", "GFLOP/s", HasAvx2, nullptr, FmaAvx2},
    {"f32_fma", "avx512", "GFLOP/s", HasAvx512, nullptr, FmaAvx512},
    {"int8_dot", "avx2", "GOP/s", HasAvx2, nullptr, DotAvx2},
    {"int8_dot_int16_sums", "avx2", "GOP/s", HasAvx2, nullptr, DotInt16SumsAvx2},
    {"int8_dot", "avx_vnni", "GOP/s", HasAvxVnni, nullptr, DotAvxVnni},
    {"int8_dot", "avx512_vnni", "GOP/s", HasAvx512Vnni, nullptr, DotAvx512Vnni},
    {"bf16_dot", "avx512_bf16", "GFLOP/s", HasAvx512Bf16, nullptr, DotAvx512Bf16},
    {"int8_tile", "amx", "GOP/s", HasTileInt8, ConfigureTiles, TileInt8},
    {"bf16_tile", "amx", "GFLOP/s", HasTileBf16, ConfigureTiles, TileBf16},
};

// --- memory ---
__attribute__((target("avx2"))) uint64_t ReadAvx2(const std::byte* data, size_t bytes) {
  __m256i sum[4] = {};
  for (size_t at = 0; at + 128 <= bytes; at += 128) {
    for (int i = 0; i < 4; ++i) {
      sum[i] = _mm256_add_epi64(
          sum[i], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + at + 32 * i)));
    }
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return bytes;
}

__attribute__((target("avx512f"))) uint64_t ReadAvx512(const std::byte* data, size_t bytes) {
  __m512i sum[4] = {};
  for (size_t at = 0; at + 256 <= bytes; at += 256) {
    for (int i = 0; i < 4; ++i)
      sum[i] = _mm512_add_epi64(sum[i], _mm512_loadu_si512(data + at + 64 * i));
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return bytes;
}

__attribute__((target("sse2"))) uint64_t ReadSse2(const std::byte* data, size_t bytes) {
  __m128i sum[4] = {};
  for (size_t at = 0; at + 64 <= bytes; at += 64) {
    for (int i = 0; i < 4; ++i) {
      sum[i] = _mm_add_epi64(sum[i],
                             _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + at + 16 * i)));
    }
  }
  for (size_t i = 1; i < std::size(sum); ++i) sum[0] += sum[i];
  asm volatile("" : : "v"(sum[0]));
  return bytes;
}

}  // namespace

absl::Span<const ComputeLoop> ComputeLoops() { return kLoops; }

ReadLoop BestReadLoop() {
  if (HasAvx512()) return ReadAvx512;
  return HasAvx2() ? ReadAvx2 : ReadSse2;
}

}  // namespace fairlead::bench
#endif
