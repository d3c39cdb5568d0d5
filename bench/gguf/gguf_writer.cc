// SPDX-License-Identifier: Apache-2.0
#include "bench/gguf/gguf_writer.h"

#include <fstream>

#include "kernels/strings.h"
#include "models/gguf.h"

namespace fairlead::bench {
namespace {

// enum gguf_type of the metadata values we write.
constexpr uint32_t kTypeU32 = 4, kTypeF32 = 6, kTypeString = 8;
constexpr uint64_t kAlignment = 32;  // the format's default

uint64_t Padding(uint64_t offset) { return (kAlignment - offset % kAlignment) % kAlignment; }

template <typename T>
void Put(std::ostream& out, T value) {
  out.write(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutString(std::ostream& out, const std::string& text) {
  Put<uint64_t>(out, text.size());
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
}

void PutValue(std::ostream& out, const GgufValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    Put(out, kTypeString);
    PutString(out, *text);
  } else if (const auto* number = std::get_if<uint32_t>(&value)) {
    Put(out, kTypeU32);
    Put(out, *number);
  } else {
    Put(out, kTypeF32);
    Put(out, std::get<float>(value));
  }
}

void PutPadding(std::ostream& out, uint64_t count) {
  constexpr char kZeros[kAlignment] = {};
  out.write(kZeros, static_cast<std::streamsize>(count));
}

}  // namespace

void GgufWriter::AddTensor(std::string name, DType dtype, std::vector<int64_t> dim,
                           std::vector<absl::Span<const std::byte>> pieces) {
  TensorEntry tensor{std::move(name), dtype, std::move(dim), std::move(pieces)};
  for (const auto& piece : tensor.pieces) tensor.bytes += piece.size();
  tensors_.push_back(std::move(tensor));
}

void GgufWriter::Write(std::ostream& out) const {
  const auto begin = out.tellp();
  out.write("GGUF", 4);
  Put<uint32_t>(out, 3);
  Put<uint64_t>(out, tensors_.size());
  Put<uint64_t>(out, values_.size());
  for (const auto& [key, value] : values_) {
    PutString(out, key);
    PutValue(out, value);
  }
  uint64_t offset = 0;
  for (const TensorEntry& tensor : tensors_) {
    PutString(out, tensor.name);
    Put<uint32_t>(out, static_cast<uint32_t>(tensor.dim.size()));
    for (auto it = tensor.dim.rbegin(); it != tensor.dim.rend(); ++it) Put<uint64_t>(out, *it);
    Put<uint32_t>(out, GgmlTypeOf(tensor.dtype));
    Put<uint64_t>(out, offset);
    offset += tensor.bytes + Padding(tensor.bytes);
  }
  PutPadding(out, Padding(static_cast<uint64_t>(out.tellp() - begin)));
  for (const TensorEntry& tensor : tensors_) {
    for (const auto& piece : tensor.pieces) {
      out.write(reinterpret_cast<const char*>(piece.data()),
                static_cast<std::streamsize>(piece.size()));
    }
    PutPadding(out, Padding(tensor.bytes));
  }
}

absl::Status GgufWriter::Write(const std::string& path) const {
  std::ofstream file(path, std::ios::binary);
  if (file) Write(file);
  file.close();
  if (!file) return absl::UnavailableError(StrCat(path, ": cannot be written"));
  return absl::OkStatus();
}

}  // namespace fairlead::bench
