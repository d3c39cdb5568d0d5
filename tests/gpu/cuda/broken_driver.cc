// SPDX-License-Identifier: Apache-2.0
// A libcuda.so.1 that cannot be loaded: it needs this, and nobody has it.
extern "C" int fairlead_missing();
extern "C" int fairlead_needs_missing() { return fairlead_missing(); }
