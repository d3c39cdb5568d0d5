// SPDX-License-Identifier: Apache-2.0
// The steps of pretokenizer.h. Immutable: any thread.
#pragma once

#include <memory>
#include <string>

#include "models/pretokenizer.h"
#include "models/regex.h"

namespace fairlead {

class PreTokenizer::Step {
 public:
  virtual ~Step() = default;
  virtual void Apply(Words* words) const = 0;
  virtual bool keeps_all() const { return true; }
  virtual bool is_alphabet() const { return false; }
  virtual bool rewrites() const { return false; }  // text, which may then be 4 times as long
};

enum class MetaspacePrepend { kAlways, kFirst, kNever };  // kFirst: where the input begins

// Matches, or with `invert` what lies between them, are the delimiters.
std::unique_ptr<PreTokenizer::Step> MakeRegexSplitStep(Regex regex, SplitBehavior behavior,
                                                       bool invert);
// Each character of the class is a delimiter.
std::unique_ptr<PreTokenizer::Step> MakeClassSplitStep(bool (*is_in)(char32_t),
                                                       SplitBehavior behavior);
// A space before each word that does not begin with one.
std::unique_ptr<PreTokenizer::Step> MakePrefixSpaceStep();
std::unique_ptr<PreTokenizer::Step> MakeByteAlphabetStep();
// Spaces become `replacement`, which is put before a word that does not begin with it.
std::unique_ptr<PreTokenizer::Step> MakeMetaspaceStep(std::string replacement,
                                                      MetaspacePrepend prepend);
// Words of so many characters.
std::unique_ptr<PreTokenizer::Step> MakeFixedLengthStep(int length);

}  // namespace fairlead
