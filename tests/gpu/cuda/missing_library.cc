// SPDX-License-Identifier: Apache-2.0
// What broken_driver.cc is linked to, and does not find when it is loaded.
extern "C" [[gnu::visibility("default")]] int fairlead_missing() { return 0; }
