# Everything that comes from the system. deploy/install-deps.sh installs it.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)
find_package(Boost 1.74 REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)  # compiled in: nothing to link
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)

# oneDNN >= 3.2: the distribution's package where it is new enough, else the folder that
# deploy/install-deps.sh made from the package-index wheel.
set(ONEDNN_ROOT "/opt/onednn" CACHE PATH "Prefix of a oneDNN >= 3.2 that is not installed system-wide")
find_package(dnnl 3.2 CONFIG QUIET PATHS ${ONEDNN_ROOT} ${CMAKE_SOURCE_DIR}/build/deps/onednn)
set(FAIRLEAD_FOUND_ONEDNN ${dnnl_FOUND})
