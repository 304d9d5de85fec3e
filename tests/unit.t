#!/bin/sh
# The decoder, the formats, the counting rules and the other pure parts: see unit/unit.c.
cd "$(dirname "$0")" && exec "${UNIT:-unit/unit}"
