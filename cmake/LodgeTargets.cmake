# One place for the flags that every target shares.

add_library(lodge_flags INTERFACE)
target_compile_options(lodge_flags INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers
  -fno-strict-aliasing)
target_include_directories(lodge_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # The deprecated thing is libstdc++ 12's own, within std::stable_sort.
  target_compile_options(lodge_flags INTERFACE -Wthread-safety -Wno-deprecated-declarations)
endif()
if(LODGE_SANITIZE)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "LODGE_SANITIZE needs Clang, for libFuzzer")
  endif()
  # One build serves the unit tests and the fuzz targets: what libFuzzer counts costs the tests little.
  target_compile_options(lodge_flags INTERFACE
    -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(lodge_flags INTERFACE -fsanitize=address,undefined)
endif()

# The standard library takes longer to read than most of our files to compile: Clang reads it once, and once more with GoogleTest. g++
# does not, so that its builds show where a source does not include what it uses (and it warns of what is none, from such headers).
function(lodge_precompile name)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    return()
  endif()
  file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/precompiled/${name}.cpp CONTENT "")
  add_library(${name} OBJECT ${CMAKE_BINARY_DIR}/precompiled/${name}.cpp)
  target_link_libraries(${name} PRIVATE lodge_flags)
  target_precompile_headers(${name} PRIVATE <algorithm> <array> <atomic> <charconv> <chrono> <condition_variable> <cstring> <deque>
    <expected> <functional> <map> <memory> <mutex> <numeric> <optional> <span> <string> <string_view> <thread> <unordered_map> <utility>
    <variant> <vector> <fmt/format.h> ${ARGN})
endfunction()
function(lodge_use_precompiled target name)
  if(TARGET ${name})
    target_precompile_headers(${target} REUSE_FROM ${name})
  endif()
endfunction()
lodge_precompile(lodge_precompiled)
if(LODGE_TESTS)
  lodge_precompile(lodge_test_precompiled <gtest/gtest.h>)
  if(TARGET lodge_test_precompiled)
    target_link_libraries(lodge_test_precompiled PRIVATE GTest::gtest)
  endif()
endif()

# lodge_library(NAME sources... [DEPENDS targets...])
# A static library of the project: target lodge_NAME.
function(lodge_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  add_library(lodge_${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(lodge_${name} PUBLIC lodge_flags ${ARG_DEPENDS})
  lodge_use_precompiled(lodge_${name} lodge_precompiled)
endfunction()

# lodge_freestanding(NAME sources... [DEPENDS targets...])
# The freestanding core (docs/engine.md): general registers only, no exceptions, no RTTI, no calls into
# the C library, so that helpers never disturb the guest's vector and x87 state.
function(lodge_freestanding name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  add_library(lodge_${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_compile_options(lodge_${name} PRIVATE
    -Wall -Wextra -Werror -Wno-missing-field-initializers -fno-strict-aliasing
    -ffreestanding -fno-exceptions -fno-rtti -fno-stack-protector
    -fno-threadsafe-statics -fno-asynchronous-unwind-tables -mno-red-zone -O2)
  # With -mgeneral-regs-only Clang refuses the library's headers; it only builds for the sanitizers, which run no translated code.
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    target_compile_options(lodge_${name} PRIVATE -mgeneral-regs-only -fno-tree-loop-distribute-patterns)
  endif()
  target_include_directories(lodge_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  if(ARG_DEPENDS)
    target_link_libraries(lodge_${name} PUBLIC ${ARG_DEPENDS})
  endif()
  if(LODGE_TESTS AND NOT LODGE_SANITIZE)
    add_test(NAME ${name}.is_freestanding
      COMMAND ${CMAKE_COMMAND} -DARCHIVE=$<TARGET_FILE:lodge_${name}> -DNM=${CMAKE_NM} -DOBJDUMP=${CMAKE_OBJDUMP}
        -P ${CMAKE_SOURCE_DIR}/cmake/freestanding_check.cmake)
    set_tests_properties(${name}.is_freestanding PROPERTIES LABELS unit)
  endif()
endfunction()

# All that ctest -L unit runs; the sanitizer build makes no more than this.
add_custom_target(unit_tests)

# lodge_test(NAME sources... [DEPENDS targets...] [LABEL label])
# Unit tests beside the code: one binary NAME_test, its cases known to ctest by name and by LABEL: `unit` (the default, also
# run under the sanitizers), `translated` (runs translated code, which no sanitizer understands) or `long` (./test --long).
function(lodge_test name)
  if(NOT LODGE_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "LABEL" "DEPENDS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  add_executable(${name}_test ${ARG_UNPARSED_ARGUMENTS})
  set_target_properties(${name}_test PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name}_test PRIVATE lodge_flags ${ARG_DEPENDS} GTest::gtest GTest::gmock GTest::gtest_main)
  lodge_use_precompiled(${name}_test lodge_test_precompiled)
  if(ARG_LABEL STREQUAL unit)
    add_dependencies(unit_tests ${name}_test)
  endif()
  gtest_discover_tests(${name}_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300 LABELS ${ARG_LABEL})
endfunction()
