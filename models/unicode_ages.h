// SPDX-License-Identifier: Apache-2.0
// What Unicode has added since the versions that Hugging Face's library classifies with, up to
// version 15: it normalizes by 9, and knows BERT's categories by 8. From Unicode's DerivedAge.txt
// and UnicodeData.txt, checked against the library's answers for every code point. Pure functions:
// any thread.
#pragma once

namespace fairlead {

bool IsMarkSince9(char32_t code_point);         // M
bool IsNonspacingSince8(char32_t code_point);   // Mn
bool IsOtherSince8(char32_t code_point);        // C
bool IsPunctuationSince8(char32_t code_point);  // P
bool DecomposesSince9(char32_t code_point);     // for compatibility

}  // namespace fairlead
