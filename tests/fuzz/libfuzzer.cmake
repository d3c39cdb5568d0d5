# The libFuzzer programs, for Clang. They are linked with instrumented copies of the sources that the entries reach, and of
# nothing else: no kernels, no transports.
get_target_property(models fairlead_models SOURCES)
list(FILTER models INCLUDE REGEX "\\.cc$")
list(FILTER models EXCLUDE REGEX "^(convert_weights|decoder|decoder_parts|dummy_weights|embedder|embedding_model|encoder|parameters|weight_cache|packed_file_writer)\\.cc$")
list(TRANSFORM models PREPEND ${CMAKE_SOURCE_DIR}/models/)

set(proto ${CMAKE_SOURCE_DIR}/proto/fairlead/v1/inference.proto)
set(gen ${CMAKE_CURRENT_BINARY_DIR}/gen)
file(MAKE_DIRECTORY ${gen})
add_custom_command(OUTPUT ${gen}/fairlead/v1/inference.pb.cc ${gen}/fairlead/v1/inference.pb.h
  COMMAND protobuf::protoc -I ${CMAKE_SOURCE_DIR}/proto --cpp_out=${gen} ${proto} DEPENDS ${proto} VERBATIM)
set(sentencepiece ${CMAKE_SOURCE_DIR}/proto/sentencepiece/model.proto)
add_custom_command(OUTPUT ${gen}/sentencepiece/model.pb.cc ${gen}/sentencepiece/model.pb.h
  COMMAND protobuf::protoc -I ${CMAKE_SOURCE_DIR}/proto --cpp_out=${gen} ${sentencepiece} DEPENDS ${sentencepiece} VERBATIM)
set_source_files_properties(${gen}/fairlead/v1/inference.pb.cc ${gen}/sentencepiece/model.pb.cc PROPERTIES COMPILE_OPTIONS -w)

add_library(fairlead_fuzzed STATIC ${models} entry.cc ../server/fake_model.cc ${gen}/fairlead/v1/inference.pb.cc
  ${gen}/sentencepiece/model.pb.cc ${CMAKE_SOURCE_DIR}/kernels/check.cc ${CMAKE_SOURCE_DIR}/kernels/dtype.cc ${CMAKE_SOURCE_DIR}/server/errors.cc
  ${CMAKE_SOURCE_DIR}/server/embed_prepare.cc ${CMAKE_SOURCE_DIR}/server/json_append.cc ${CMAKE_SOURCE_DIR}/server/json_fields.cc
  ${CMAKE_SOURCE_DIR}/server/openai_embeddings.cc ${CMAKE_SOURCE_DIR}/server/openai_request.cc ${CMAKE_SOURCE_DIR}/server/prepare.cc)
target_include_directories(fairlead_fuzzed SYSTEM PUBLIC ${gen} ${XXHASH_INCLUDE_DIR})
target_link_libraries(fairlead_fuzzed PUBLIC nlohmann_json::nlohmann_json protobuf::libprotobuf PkgConfig::PCRE2 PkgConfig::UTF8PROC
  absl::status absl::statusor absl::span absl::strings absl::time absl::flat_hash_map absl::flat_hash_set absl::cleanup absl::function_ref)
target_precompile_headers(fairlead_fuzzed PRIVATE ${FAIRLEAD_HEADERS})

foreach(source ${fuzz_entries})
  string(REPLACE .cc "" entry ${source})
  add_executable(${entry} EXCLUDE_FROM_ALL ${source})
  target_compile_definitions(${entry} PRIVATE FAIRLEAD_GOLDEN_DIR="${FAIRLEAD_GOLDEN_DIR}")
  target_link_libraries(${entry} PRIVATE fairlead_fuzzed)
  target_link_options(${entry} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${entry} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  list(APPEND programs ${entry})
endforeach()
add_custom_target(fuzz DEPENDS ${programs})
