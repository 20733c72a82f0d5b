#!/usr/bin/env bash
# On a machine with a GPU, in one command: the reference checkpoints of every family against their float64 values on the
# device, the program's own checks, and its speed there.
#
#   tests/on_gpu.sh                     builds with --features cuda
#   DEVICE=cuda:0,1 tests/on_gpu.sh     spreads the blocks over two devices
#   DEVICE=metal FEATURES=metal tests/on_gpu.sh
#   MODEL=./some-llama tests/on_gpu.sh  measures another model than the one inside
#
# Where there is no compiler, PROGRAM and SUITE name the program and the test binary, built elsewhere:
#   cargo build --release --features cuda
#   cargo test --release --features cuda --test suite --no-run
set -euo pipefail
cd "$(dirname "$0")/.."

device=${DEVICE:-cuda}
features=${FEATURES:-cuda}
model=${MODEL:-demo}

if [ -z "${PROGRAM:-}" ]; then
  cargo build --release --locked --features "$features"
  PROGRAM=target/release/entroscope
fi
if [ -z "${SUITE:-}" ]; then
  SUITE=$(cargo test --release --locked --features "$features" --test suite --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/suite-[^"]*\)".*/\1/p' | tail -n 1)
fi

echo "== every family against float64 on $device"
export CARGO_MANIFEST_DIR=$PWD
ENTROSCOPE_TEST_DEVICE=$device "$SUITE" --test-threads=1 devices:: quantised_weights

echo "== the program's own checks on $device"
"$PROGRAM" doctor --device "$device" --model "$model"

echo "== speed on $device"
"$PROGRAM" bench --device "$device" --model "$model" --json
