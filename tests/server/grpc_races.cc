// SPDX-License-Identifier: Apache-2.0
// What ThreadSanitizer is told to overlook in the programs that talk gRPC, and in no others: the
// engine, the scheduler, the service and HTTP have programs of their own, where nothing is
// silenced.
//
// The sanitizer sees only what it instrumented. The distribution's gRPC, Abseil and Protobuf
// are not, so their locks are invisible to it, and what they hand from thread to thread, OpenSSL's
// objects included, looks like a race. A line silences every report with a frame of the library, or
// of gRPC's own templates, in the stack of either access. All callbacks of server/grpc run below
// such frames: there the sanitizer finds next to nothing, and a review has to.

extern "C" const char* __tsan_default_suppressions() {
  return "race:libgrpc\n"
         "race:libgpr.so\n"
         "race:libabsl_\n"
         "race:libprotobuf.so\n"
         "race:libssl\n"
         "race:libcrypto\n"
         "race:^grpc::\n"
         "race:^grpc_impl::\n";
}
