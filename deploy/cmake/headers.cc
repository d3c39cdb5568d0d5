// SPDX-License-Identifier: Apache-2.0
// Empty: CMake wants a source for what it precompiles headers with.
