#!/usr/bin/env bash
# tests/amd.t under the newest kernel that a suite of Debian has.
AMD_SUITE=experimental exec "$(dirname "$0")/amd.t"
