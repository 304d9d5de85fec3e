#!/usr/bin/env bash
# tests/amd.t under the oldest kernel that a suite of Debian has: 5.10.
AMD_SUITE=bullseye exec "$(dirname "$0")/amd.t"
