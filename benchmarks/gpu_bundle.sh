#!/usr/bin/env bash
# Packs the wheels that a bare GPU machine lacks: Linux on x86-64 with Python 3.12, PyTorch, transformers, accelerate, peft,
# safetensors, OpenCV, Pillow, NumPy, pyarrow and rich. Versions are those of configs/constraints.txt.
#
#   benchmarks/gpu_bundle.sh weights FOLDER    for runs with the demo's weights: agreement, and training
#   benchmarks/gpu_bundle.sh video FOLDER      for runs without them: full size, and PyAV to write and judge clips
#
# In two loads, since weights and PyAV together weigh more than a slow line likes. On the other machine:
#   python3 -m pip install --no-index --no-deps --target SITE FOLDER/*.whl && export PYTHONPATH=SITE
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(diffusers importlib_metadata zipp pydantic pydantic_core annotated-types typing-inspection typing_extensions)
case "${1:-}" in
weights) ;;
video) PACKAGES+=(av) ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
FOLDER=${2:?where to put the wheels}

PINS=()
for name in "${PACKAGES[@]}"; do
    pin=$(grep -i "^$name==" configs/constraints.txt) || { echo "configs/constraints.txt has no version of $name" >&2; exit 2; }
    PINS+=("$pin")
done
PYTHON=.venv/bin/python
[ -x "$PYTHON" ] || PYTHON=python3
PLATFORMS=()
for glibc in 28 27 17 5; do PLATFORMS+=(--platform "manylinux_2_${glibc}_x86_64"); done
"$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${PLATFORMS[@]}" --platform manylinux2014_x86_64 --dest "$FOLDER" "${PINS[@]}"
(cd "$FOLDER" && ls -l -- *.whl | awk '{printf "%6.1f MB  %s\n", $5 / 1e6, $9; sum += $5} END {printf "%6.1f MB\n", sum / 1e6}')
