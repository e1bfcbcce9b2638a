#!/usr/bin/env bash
# Measures on a GPU, on a machine that has a driver, Python with torch, and no network: makes an environment out of what the machine
# has and of carried wheels, and runs the parts. Everything else goes to `python -m tritonrag_perf.gpu`; see there, or --help.
#
#   perf/gpu.sh [--wheels DIR] [--env DIR] --out DIR [--parts encoder,faiss,server,llm] [--page FILE] ...
#   perf/gpu.sh --collect --wheels DIR --env DIR       only take wheels in, where they come in several loads
#   perf/gpu.sh --test [--wheels DIR] [--env DIR] ...  the tests that need a GPU, tests/gpu; the rest goes to pytest
#
# --wheels DIR   wheels, and pieces of wheels as `split -b 48M -d -a 2 NAME.whl NAME.whl.` makes them; perf/gpu-wheels.txt says which
# --env DIR      where the environment is made and stays; without it, it is a temporary one
# PYTHON         the Python of the machine; python3
#
# Where a command may take ten minutes at most: one part a call, with the same --env, --work and --out, and where files of one call
# are not there in the next, `python -m tritonrag_perf.gpu.collate` afterwards over the records of all.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
wheels='' environment='' collect='' test=''
arguments=()

fail() { echo "perf/gpu.sh: $*" >&2; exit 2; }

while (($#)); do
  case $1 in
    --wheels | --env)
      (($# > 1)) || fail "$1 wants a folder"
      if [[ $1 == --wheels ]]; then wheels=$2; else environment=$2; fi
      shift 2
      ;;
    --collect) collect=1; shift ;;
    --test) test=1; shift ;;
    *) arguments+=("$1"); shift ;;
  esac
done

if [[ -n $collect ]]; then
  [[ -n $wheels && -n $environment ]] || fail '--collect wants --wheels DIR and --env DIR'
fi
[[ -z $wheels || -d $wheels ]] || fail "$wheels is not a folder; perf/gpu-wheels.txt says what goes into it"
if [[ -z $environment ]]; then
  environment=$(mktemp -d -t tritonrag-gpu-env-XXXXXX)
  trap 'rm -rf "$environment"' EXIT
fi
mkdir -p "$environment/wheels"
environment=$(cd "$environment" && pwd)

# A piece is kept until all pieces of its wheel are there.
take_in() {
  shopt -s nullglob
  local file first name
  for file in "$1"/*.whl "$1"/*.whl.[0-9][0-9]; do cp -f "$file" "$environment/wheels/"; done
  for first in "$environment"/wheels/*.whl.00; do
    name=${first%.00}
    cat "$name".[0-9][0-9] >"$name.joined"
    if "$python" -m zipfile -t "$name.joined" >/dev/null 2>&1; then
      mv "$name.joined" "$name"
      rm -f "$name".[0-9][0-9]
    else
      rm -f "$name.joined"
    fi
  done
  shopt -u nullglob
}

[[ -z $wheels ]] || take_in "$wheels"
[[ -z $collect ]] || exit 0
if compgen -G "$environment/wheels/*.whl.[0-9][0-9]" >/dev/null; then
  fail "some pieces are missing of: $(cd "$environment/wheels" && ls ./*.whl.[0-9][0-9] | sed 's/\.[0-9]*$//; s/^\.\///' | sort -u | xargs)"
fi

# The environment sees, in this order: the carried wheels, this checkout, and all that the machine's own Python sees (which may be
# a virtual environment itself, so that --system-site-packages would pass it by).
venv=$environment/venv
if [[ ! -x $venv/bin/python ]]; then
  echo 'making the environment' >&2
  "$python" -m venv --without-pip "$venv"
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  {
    for room in client python_backends export perf tritonrag; do echo "$root/$room"; done
    "$python" -c 'import sys; [print(f"import site; site.addsitedir({p!r})") for p in sys.path if p.endswith(("site-packages", "dist-packages"))]'
  } >"$site/machine.pth"
fi
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

carried=$(cd "$environment/wheels" && ls)
if [[ -n $carried && $carried != "$(cat "$environment/installed" 2>/dev/null || true)" ]]; then
  echo 'installing the wheels' >&2
  "$python" -m pip --disable-pip-version-check --python "$venv/bin/python" install --quiet --no-index --no-deps --no-compile \
    --no-cache-dir --ignore-installed "$environment"/wheels/*.whl
  echo "$carried" >"$environment/installed"
fi

# NVIDIA's wheels put CUDA into folders below site-packages/nvidia, and FAISS and cuVS look beside themselves alone: the machine's
# libraries are linked there, where no carried ones are.
"$python" -c 'import sys; print("\n".join(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))))' |
  while IFS= read -r folder; do
    for library in "$folder"/nvidia/*/lib/*.so*; do
      [[ -e $library ]] || continue
      beside=$site/${library#"$folder/"}
      [[ ! -e $beside ]] || continue
      mkdir -p "$(dirname "$beside")"
      ln -s "$library" "$beside"
    done
  done

# What ONNX Runtime loads by name; and libpython for Triton's model processes, which a Python that was moved has where it lies, not
# where its own settings say.
libraries=$("$venv/bin/python" - <<'END'
import glob, sys
folders = [folder for path in sys.path for folder in sorted(glob.glob(f"{path}/nvidia/*/lib"))]
version = "%d.%d" % sys.version_info[:2]
folders += [f"{sys.base_prefix}/lib"] if glob.glob(f"{sys.base_prefix}/lib/libpython{version}.so*") else []
print(":".join(folders))
END
)
[[ -z $libraries ]] || export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PATH=$venv/bin:$PATH PYTHONUNBUFFERED=1
cd "$root"
if [[ -n $test ]]; then
  # Warnings are errors for the versions in requirements/, not for those of this machine.
  "$venv/bin/python" -m pytest -m gpu -W default -p no:cacheprovider tests/gpu ${arguments[@]+"${arguments[@]}"}
  exit
fi
"$venv/bin/python" -m tritonrag_perf.gpu ${arguments[@]+"${arguments[@]}"}
