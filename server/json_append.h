// SPDX-License-Identifier: Apache-2.0
// JSON written straight into a string, for what is sent with every token. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace fairlead {

// Appends the string in its quotes: the bytes that DumpJson gives for it.
void AppendJsonString(std::string_view text, std::string* out);

}  // namespace fairlead
